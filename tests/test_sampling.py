"""Texts of different lengths share a batch, masked where they are shorter, and come out as they would alone."""

import pytest

from controls import Avoid, Contains, Infill, Length, Pos, Semantic, SyntaxTree
from dlmctl import generate
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import BATCH_COST, batches_of

# So many steps that rounding, were it another in each shape of a batch, would grow until it decides words.
STEPS, PATIENCE = 12, 0.2
LENGTHS = [{"words": words} for words in (6, 30, 14, 11)]


def each(kind, *params):
    return kind.each([kind.Params.model_validate(one) for one in params])


CONTROLS = {
    "free": None,
    "pos": each(Pos, *({"tags": ["DET", "PROPN", "AUX", *["*"] * rest]} for rest in (3, 25, 12))),
    "semantic": each(Semantic, {"food": "Italian"}) & each(Length, *LENGTHS),
    "tree": each(SyntaxTree, *({"tree": f"(S (NP DT NN) (VP VBZ {'(NP DT NN) ' * pairs}) .)"} for pairs in (1, 12, 5))),
    "spans": SyntaxTree(spans=[{"label": "NP", "start": 0, "end": 1}]) & each(Length, *LENGTHS),
    "words": (Contains("cheap pub") & Avoid(words=["family friendly"]) | Contains("expensive"))
    & each(Length, *LENGTHS),
    "not": ~each(Length, {"words": 12, "tolerance": 4}) & ~Semantic(food="Italian"),
    "infill": each(
        Infill, {"template": "The ___ is a ___ pub ."}, {"template": "The ___ is ___{24} in the riverside ."}
    ),
}


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize(("method", "precision"), [("words", "fp32"), ("words", "bf16"), ("latent", "fp32")])
def test_a_text_does_not_depend_on_longer_ones_beside_it(e2e, name, method, precision):
    control, guidance = CONTROLS[name], settings_of("balanced").guidance.model_copy(update={"method": method})
    sampler = SamplerSettings(steps=STEPS, patience=PATIENCE, precision=precision)
    runs = [
        generate(control, model=e2e, samples=6, seed=2, sampler=sampler, guidance=guidance, batch_size=size)
        for size in (1, 6)
    ]
    assert [sample.words for sample in runs[0]] == [sample.words for sample in runs[1]]
    assert [sample.latent.shape for sample in runs[0]] == [sample.latent.shape for sample in runs[1]]
    assert len({sample.latent.shape for sample in runs[1]}) > 1  # or the test would be about nothing


def rows(*canvases):
    return [(Draw(0, number), Layout(canvas, None)) for number, canvas in enumerate(canvases)]


def canvases(batches):
    return [[layout.canvas for _, layout in batch] for batch in batches]


def test_few_texts_share_a_batch_and_many_are_split_by_length():
    assert canvases(batches_of(rows(8, 16, 24, 64), 64, mixed=True)) == [[8, 16, 24, 64]]
    many = [8] * 40 + [64] * 40
    assert canvases(batches_of(rows(*many), 64, mixed=True)) == [[8] * 40, [64] * 40]


def test_a_split_costs_less_than_a_batch_only_beyond_its_own_cost():
    saved = BATCH_COST // 8  # rows that 8 positions less save as much as a batch costs
    for count, batches in ((saved - 1, 1), (saved + 1, 2)):
        assert len(batches_of(rows(*[8] * count, 16), count + 1, mixed=True)) == batches


def test_batches_are_no_larger_than_asked_for():
    assert canvases(batches_of(rows(8, 8, 8, 8, 8), 2, mixed=True)) in ([[8], [8, 8], [8, 8]], [[8, 8], [8, 8], [8]])
    assert batches_of([], 4, mixed=True) == []


def test_without_masks_each_length_has_batches_of_its_own():
    assert canvases(batches_of(rows(8, 8, 16, 24), 64, mixed=False)) == [[8, 8], [16], [24]]


class Lengths(Control):
    """A third party's control that has never heard of masks. Notes the canvases of the batches that it sees."""

    name = "lengths"
    Params = ControlParams

    def prepare(self, setting):
        self.seen.append({layout.canvas for layout in setting.layouts})

    def energy(self, state):
        return state.x.square().sum((1, 2))

    def check(self, words):
        raise NotImplementedError


@pytest.mark.parametrize("ragged", [False, True])
def test_a_control_sees_mixed_lengths_only_if_it_says_that_it_can(e2e, ragged, monkeypatch):
    from dlmctl.sampling.draw import Plan, draw_texts

    control = Lengths()
    control.seen, control.ragged = [], ragged
    chosen = settings_of("fast")
    plan = Plan(e2e, control, chosen.sampler.model_copy(update={"steps": 1}), chosen.guidance, 64)
    assert len(list(draw_texts(plan, [Draw(1, sample) for sample in range(6)]))) == 6
    assert (max(map(len, control.seen)) > 1) is ragged
