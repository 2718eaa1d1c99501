"""Under `any` each text takes one branch, guided by all the controls in it."""

from collections import Counter

import pytest
import torch

from controls import Avoid, Contains, Infill, Length, Pattern, Pos
from dlmctl.control.base import All, AnyOf, Control, ControlParams, Not
from dlmctl.control.branches import candidate_branches
from dlmctl.control.check import Check
from dlmctl.control.prepared import Prepared
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.possible_draws import impossible_draws

QUICK = SamplerSettings(steps=2)
A, B, C, D = Contains("bread"), Contains("river"), Contains("cats"), Contains("old")
MOST = 30


def words(control, pretrained, **options):
    settings = {"samples": 8, "sampler": QUICK, **options}
    return [sample.words for sample in generate(control, model=pretrained, **settings)]


def first(control, sample, **draw):
    return next(candidate_branches(control, Draw(0, sample, **draw), MOST))


def asked(control, sample=0):
    """The controls of a sample's branch."""
    return [repr(part) for part in first(control, sample).control.parts]


def test_any_of_one_control_is_that_control(pretrained):
    for control in (A, Pos(tags=["DET", "NOUN", "PUNCT"]), Length(7)):
        assert words(AnyOf([control]), pretrained) == words(control, pretrained)
        assert words(AnyOf([AnyOf([3 * control])]), pretrained) == words(control, pretrained)


def test_any_around_a_choice_draws_no_random_number():
    assert all(asked(AnyOf([A | B]) & (C | D), sample) == asked((A | B) & (C | D), sample) for sample in range(40))


def test_branches_are_chosen_by_weight():
    found = Counter(first(4 * A | B, sample).picks for sample in range(500))
    assert 360 < found[0,] < 440
    assert {first(1e6 * A | 0 * B, sample).picks for sample in range(50)} == {(0,)}
    assert {first(0 * A | B, sample).picks for sample in range(50)} == {(1,)}


def test_the_weight_of_a_branch_does_not_scale_guidance():
    strong = type("Strong", (Contains,), {"weight": 8.0})("bread")
    (guide,) = first(AnyOf([3 * strong]), 0).control.parts
    assert guide.weight == pytest.approx(8.0)
    (guide,) = first(2 * AnyOf([3 * (0.5 * A & 0 * A), 0 * B]), 0).beside
    assert [part.weight for part in guide.parts] == pytest.approx([1.0, 0.0])


def test_particles_of_a_draw_share_a_branch_and_attempts_do_not():
    assert len({first(A | B | C | D, 3, particle=particle).picks for particle in range(8)}) == 1
    assert len({first(A | B | C | D, 3, attempt=attempt).picks for attempt in range(40)}) == 4
    found = [way.picks for way in candidate_branches((A | B) & (C | 1e-9 * D), Draw(0, 1), MOST)]
    assert sorted(found) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_not_is_pushed_inwards():
    assert asked(~(A | B)) == [repr(~A), repr(~B)]
    assert {tuple(asked(~(A & B), sample)) for sample in range(20)} == {(repr(~A),), (repr(~B),)}
    assert asked(Not(Not(A & ~(B | C)))) == [repr(A), repr(~B), repr(~C)]


def test_word_counts_agree_within_a_branch():
    """Also for independent choices, where the second could otherwise find none left."""
    control = (Length(5) | Length(9)) & (Length(6) | Length(9) | Length(12))
    assert {tuple(asked(control, sample)) for sample in range(20)} == {(repr(Length(9)), repr(Length(9)))}


@pytest.mark.parametrize(
    "control",
    [
        A | B,
        Infill("the ___ old bridge .") | Infill("___{3} river ."),
        (A | B) & (Length(5) | Length(7)),
        ~(A & B) & ~(C | D),
        (A | B) & Avoid("river"),
        Contains.each([Contains.Params(words=[word]) for word in ("bread", "cats")]) | B,
    ],
    ids=["any", "lengths", "two", "not", "one left", "each"],
)
@pytest.mark.parametrize("particles", [1, 2])
def test_exact_controls_hold_in_every_branch(pretrained, control, particles):
    sampler = SamplerSettings(steps=2, particles=particles)
    drawn = generate(control, model=pretrained, samples=12, sampler=sampler)
    assert drawn.success == 1.0
    assert len({tuple(sample.words) for sample in drawn}) > 1


def test_texts_do_not_depend_on_the_batch(pretrained):
    control = (A | Infill("the ___ old bridge .") | ~C) & ~D
    settings = {"deterministic": True, "samples": 6}
    alone, among = (words(control, pretrained, batch_size=size, **settings) for size in (1, 6))
    assert alone == among


def test_a_faulty_branch_is_refused_whatever_is_drawn(pretrained):
    for sample in range(4):
        with pytest.raises(RecipeError, match="xyzzy"):
            words(1e6 * A | Contains("xyzzy"), pretrained, samples=1, seed=sample)
    with pytest.raises(RecipeError, match=r"excludes|no text|contradict|left"):
        words((A | B) & Avoid("river", "bread"), pretrained)


def test_an_impossible_branch_is_left_out_with_a_warning(pretrained, caplog):
    drawn = words(Length(50) | Length(7), pretrained)
    assert {len(text) for text in drawn} == {7}
    assert "under `any` is left out: sample 0: the target has 50 words" in caplog.text
    beside = words((Length(50) | Contains("old bridge") & Avoid("old") | A) & Length(7), pretrained)
    assert all("bread" in text for text in beside)
    with pytest.raises(RecipeError, match="at most 30"):
        words(Length(50) | Length(60), pretrained)


@pytest.mark.parametrize(
    ("control", "can_be"),
    [
        (Contains("xyzza"), True),
        (Contains("xyzzb", "old"), True),
        (Infill("the xyzzc ___"), True),
        (Contains("xyzzd") | Contains("old"), False),
        (Pattern(r"(old|xyzze) <any>*") | Pattern("<any>* old <any>*"), False),
    ],
)
def test_an_unknown_word_under_not_is_not_a_fault(pretrained, control, can_be, caplog):
    """The other controls still count."""
    for beside in (None, A):
        drawn = generate(~control if beside is None else ~control & beside, model=pretrained, samples=6, sampler=QUICK)
        assert drawn.success == 1.0
    assert can_be or not any("old" in one.words for one in drawn)
    assert "not among the" in caplog.text


def test_words_under_not_that_some_samples_know(pretrained):
    control = Contains.each([Contains.Params(words=[word]) for word in ("xyzzf", "bread")])
    drawn = generate(~control & Length(6), model=pretrained, samples=8, sampler=QUICK)
    assert drawn.success == 1.0


class Colour(Contains):
    """A text can have only one."""

    name = "colour"

    def clash(self, params, other):
        return None if params == other else f"{params.words[0]} is not {other.words[0]}"


def test_clashing_controls_are_refused(pretrained):
    old, river = Colour("old"), Colour("river")
    with pytest.raises(RecipeError, match="colour: the controls contradict each other: old is not river"):
        words(old & A & river, pretrained)
    assert all("old" in text for text in words((old | river) & old, pretrained))
    each = Colour.each([Colour.Params(words=["old"]), Colour.Params(words=["river"])])
    plan = Plan(pretrained, each & old, QUICK, Guidance(), 8)
    assert list(impossible_draws(plan, [Draw(0, sample) for sample in range(4)])) == [1, 3]


def test_any_needs_a_weight_above_0():
    with pytest.raises(UserError, match="weight is above 0"):
        AnyOf([0 * A, 0 * B])


class Restricts(Prepared):
    """Allows only some words, without an energy."""

    def restrict(self, logits):
        return logits.index_fill(-1, torch.arange(8, 12), -torch.inf)


class OnlySome(Control):
    name = "only_some"
    Params = ControlParams
    exact = False

    def prepare(self, batch):
        made = Restricts()
        made.exact = self.exact
        return made

    def check(self, params, words):
        return Check(1.0, True, "")


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("method", ["logits", "langevin"])
def test_one_way_of_steering_is_enough(pretrained, exact, method):
    control = OnlySome()
    control.exact = exact
    out = set(pretrained.tokenizer.words(range(8, 12)))
    options = {"guidance": Guidance(method=method), "samples": 4}
    for steered in (control, control & Length(7), AnyOf([control]), control & (A | C)):
        assert not out & {word for text in words(steered & Avoid(*out), pretrained, **options) for word in text} - {
            "bread",
            "cats",
        }
    assert words(~control, pretrained, **options) == words(None, pretrained, **options)


def test_particles_are_weighted_by_controls_with_an_energy(pretrained):
    found = generate(
        OnlySome() & Pos(tags=["DET", "*"]), model=pretrained, samples=2, sampler=SamplerSettings(particles=2)
    )
    assert len(found) == 2


def test_traces_show_the_energy_of_the_branch_under_the_name_of_the_control(pretrained):
    control = (Pos(tags=["DET", "NOUN"]) | (A & B & Length(9)) | OnlySome()) & ~C
    drawn = generate(control, model=pretrained, samples=8, sampler=QUICK, trace=8)
    shown = {tuple(sample.trace.energies) for sample in drawn}
    assert shown == {("any", "not"), ("not",)}
    assert {tuple(sample.checks) for sample in drawn} == {("any", "not")}


def test_weights_of_all_within_all_are_those_of_its_parts():
    whole = All([2 * (A & 0.5 * B), C])
    assert [part.weight for part in whole.parts] == [2.0, 1.0, 1.0]
