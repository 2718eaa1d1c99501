"""Texts of different lengths share a batch, the shorter ones masked, and are the same as alone, up to rounding.

Kernels are chosen by shape, so the last bits depend on the batch, and guidance amplifies them.
"""

import weakref
from pathlib import Path

import pytest
import torch

from controls import Avoid, Contains, Infill, Length, Pos, Semantic, SyntaxTree
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.prepared import Prepared
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.schedule import Schedule
from dlmctl.errors import UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling import batch_layout, draw
from dlmctl.sampling.batches import BATCH_COST, batches_of
from dlmctl.sampling.device import choose_device, fast_bfloat16
from dlmctl.sampling.draw import Plan, draw_texts
from dlmctl.sampling.latent_draw import times_of
from tests.diffusion.tiny_masked import TOKENIZER, tiny_masked

STEPS, PATIENCE = 6, 0.15
# What rounding in float64 may grow to on the way; a leak shows at once, and larger.
CLOSE = 1e-6
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
    "not": ~each(Length, {"words": 24, "tolerance": 4}) & ~Semantic(food="Italian"),
    "infill": each(
        Infill, {"template": "The ___ is a ___ pub ."}, {"template": "The ___ is ___{24} in the riverside ."}
    ),
}


@pytest.fixture(scope="module")
def e2e():
    return from_pretrained("e2e")


def walked(model, control, size, **settings):
    """Texts, and of each one its latent after every step, in the order of their drawing."""
    paths = []

    def watch(step):
        if step.number == 0:
            paths.extend([] for _ in step.x)
        for path, x in zip(paths[-len(step.x) :], step.x, strict=True):
            path.append(x)

    drawn = generate(control, model=model, samples=4, seed=2, batch_size=size, on_step=watch, **settings)
    return drawn.samples, paths


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("method", "name"),
    [*(("logits", name) for name in CONTROLS), *(("latent", name) for name in ("pos", "semantic", "tree", "words"))],
)
def test_a_text_does_not_depend_on_longer_ones_in_its_batch(name, method):
    control, guidance = CONTROLS[name], settings_of("balanced").guidance.model_copy(update={"method": method})
    sampler = SamplerSettings(steps=STEPS, patience=PATIENCE, precision="fp32")
    model = from_pretrained("e2e")
    assert model.model.embeddings.dtype == torch.float64
    (alone, alone_paths), (among, among_paths) = (
        walked(model, control, size, sampler=sampler, guidance=guidance) for size in (1, 4)
    )
    assert [sample.words for sample in alone] == [sample.words for sample in among]
    assert len({sample.latent.shape for sample in among}) > 1  # or the test would be about nothing
    for one, other in zip(alone_paths, among_paths, strict=True):
        assert len(one) == STEPS
        for x, beside in zip(one, other, strict=True):
            torch.testing.assert_close(beside[: len(x)], x, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("name", ["free", "tree"])
def test_deterministic_texts_are_bit_identical_at_any_batch_size(e2e, name):
    threads, runs = torch.get_num_threads(), {}
    for size, others in ((1, 1), (64, 2)):
        torch.set_num_threads(others)
        try:
            runs[size] = walked(e2e, CONTROLS[name], size, preset="fast", deterministic=True)
            assert torch.get_num_threads() == others  # given back
        finally:
            torch.set_num_threads(threads)
    (alone, alone_paths), (among, among_paths) = runs.values()
    assert [sample.words for sample in alone] == [sample.words for sample in among]
    for one, other in zip(alone_paths, among_paths, strict=True):
        assert all(map(torch.equal, one, other))


def test_deterministic_texts_are_for_the_cpu(e2e):
    assert choose_device("auto", deterministic=True).type == "cpu"
    with pytest.raises(UserError, match="deterministic is for the CPU"):
        generate(model=e2e, samples=1, deterministic=True, device="cuda")


def test_a_result_says_what_its_bits_depend_on(e2e, monkeypatch):
    quick = SamplerSettings(steps=1)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", lambda: 2)
        usual = generate(model=e2e, samples=1, sampler=quick, batch_size=3).environment
    assert (usual["batch_size"], usual["threads"], usual["device"]) == (3, 2, "cpu")
    assert usual["torch"] == torch.__version__
    assert usual["precision"] == ("bf16" if fast_bfloat16(torch.device("cpu")) else "fp32")
    alone = generate(model=e2e, samples=1, sampler=quick, batch_size=3, deterministic=True).environment
    differing = {"batch_size": 1, "threads": 1, "precision": "fp32", "deterministic": True}
    assert alone == {**usual, **differing}


def rows(*positions):
    return [(Draw(0, number), Layout(count, None)) for number, count in enumerate(positions)]


def positions(batches):
    return [[layout.positions for _, layout in batch] for batch in batches]


def test_few_texts_share_a_batch_and_many_are_split_by_length():
    assert positions(batches_of(rows(8, 16, 24, 64), 64, mixed=True)) == [[8, 16, 24, 64]]
    many = [8] * 40 + [64] * 40
    assert positions(batches_of(rows(*many), 64, mixed=True)) == [[8] * 40, [64] * 40]


def test_a_split_costs_less_than_a_batch_only_beyond_its_own_cost():
    saved = BATCH_COST // 8  # rows that 8 positions less save as much as a batch costs
    for count, batches in ((saved - 1, 1), (saved + 1, 2)):
        assert len(batches_of(rows(*[8] * count, 16), count + 1, mixed=True)) == batches


def test_large_batches_are_split_if_that_saves_more_than_a_batch_costs():
    many = [10] * 64
    split = batches_of(rows(*many), 64, mixed=True, cheap_positions=639)
    assert len(split) == 2
    assert max(map(len, split)) < 64
    assert positions(batches_of(rows(*many), 64, mixed=True, cheap_positions=640)) == [many]
    few = [10] * (BATCH_COST // 20)
    assert positions(batches_of(rows(*few), 64, mixed=True, cheap_positions=5)) == [few]


def test_batches_are_no_larger_than_requested():
    assert positions(batches_of(rows(8, 8, 8, 8, 8), 2, mixed=True)) in ([[8], [8, 8], [8, 8]], [[8, 8], [8, 8], [8]])
    assert batches_of([], 4, mixed=True) == []


def test_many_texts_make_batches_of_few_sizes():
    """Each new shape takes memory permanently, which adds up in a long run."""
    sizes = set()
    for seed in range(20):
        numbers = torch.randint(1, 5, (200,), generator=torch.Generator().manual_seed(seed))
        lengths = sorted((8 * numbers).tolist())
        batches = batches_of(rows(*lengths), 50, mixed=seed % 2 == 0)
        assert [row for batch in batches for row in batch] == rows(*lengths)
        sizes |= {len(batch) for batch in batches}
    assert sizes <= {*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 50}


def test_without_masks_each_length_has_batches_of_its_own():
    assert positions(batches_of(rows(8, 8, 16, 24), 64, mixed=False)) == [[8, 8], [16], [24]]


class Lengths(Control):
    """A third-party control that ignores masks; records the lengths of the batches that it sees."""

    name = "lengths"
    Params = ControlParams

    def __init__(self):
        super().__init__()
        self.seen, self.masks = [], []

    def prepare(self, batch):
        self.seen.append({layout.positions for layout in batch.layouts})
        return PreparedLengths(self.masks)


class PreparedLengths(Prepared):
    def __init__(self, masks):
        self.masks = masks

    def energy(self, state):
        self.masks.append(state.mask)
        return state.x.square().sum((1, 2))


def test_every_control_sees_mixed_lengths_and_the_mask_says_where_each_text_is(e2e):
    control = Lengths()
    chosen = settings_of("fast")
    plan = Plan(e2e, control, chosen.sampler.model_copy(update={"steps": 1}), chosen.guidance, 64)
    assert len(list(draw_texts(plan, [Draw(1, sample) for sample in range(6)]))) == 6
    assert len(control.seen[0]) > 1
    assert set(control.masks[0].sum(1).tolist()) == control.seen[0]


def test_the_papers_steps_are_those_of_a_discrete_process():
    paper = settings_of("paper").sampler
    kept = times_of(Schedule("sqrt", 1000), paper, 7) * 1000
    assert kept.tolist() == pytest.approx([1000, 833, 667, 501, 334, 167, 1, 0])
    even = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert times_of(Schedule("sqrt"), paper, 4).tolist() == even  # there are none to visit
    assert len(times_of(Schedule("sqrt", 30), paper, 40)) == 41  # nor so many
    assert times_of(Schedule("sqrt", 1000), paper.model_copy(update={"last": 0.5}), 2).tolist() == [1.0, 0.5, 0.0]


def test_controls_stay_prepared_for_so_many_texts_only(monkeypatch):
    model, references, alive = tiny_masked(), [], []
    control = Length(words=3)

    def feasible(plan, batch):
        prepared = batch_layout.feasible(plan, batch)
        references.append(weakref.ref(prepared))
        return prepared

    def watch(step):
        alive.append(sum(reference() is not None for reference in references))

    monkeypatch.setattr(draw, "feasible", feasible)
    pretrained = Pretrained(model, TOKENIZER, Path())
    wanted = generate(control, model=pretrained, samples=8, batch_size=2, on_step=watch)
    assert max(alive) == len(references) == 4
    references.clear(), alive.clear()
    monkeypatch.setattr(draw, "MAX_PREPARED", 4)
    drawn = generate(control, model=pretrained, samples=8, batch_size=2, on_step=watch)
    assert (len(references), max(alive)) == (4, 2)
    assert drawn.texts == wanted.texts
