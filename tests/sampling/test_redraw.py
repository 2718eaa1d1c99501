"""Other layouts for draws whose first layout fits no text."""

import pytest

from controls import Avoid, Contains, Infill, Length, Lexicon, Pattern
from dlmctl.control.base import All
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.generation.run import run_recipe
from dlmctl.recipe.load import validated
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling import redraw
from dlmctl.sampling.batch_layout import layout_of
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.possible_draws import impossible_draws

QUICK = SamplerSettings(steps=2)
PHRASE = "near the old river"


def plan_of(control, pretrained, **sampler):
    return Plan(pretrained, control, SamplerSettings(steps=2, **sampler), Guidance(), 8)


@pytest.mark.parametrize(
    "control",
    [
        Infill("Anna ___{1,9} .") & Contains(PHRASE),
        Pattern(r"Anna <any>{1,9} \.") & Contains(PHRASE),
        Infill("Anna ___{1,4} two ___{1,3}") & Lexicon(where={"place": -2}, words=["old", "grey", "two"]),
        Infill("Anna ___{1,4} two ___{1,3}") & Lexicon(where={"place": -2}, words=["old", "grey"]) & Length(7),
        Infill("___{1,4} two ___{1,4}") & Infill("___{1,4} grey ___{1,4}") & Avoid("two grey"),
        (Infill("Anna ___{1,9} .") | Infill("the ___{1,9} .")) & Contains(PHRASE),
    ],
    ids=["infill", "pattern", "sizes and place", "sizes alone", "two templates", "any"],
)
@pytest.mark.parametrize("particles", [1, 2])
def test_possible_texts_are_drawn_whatever_the_seed(pretrained, control, particles):
    sampler = SamplerSettings(steps=2, particles=particles)
    drawn = generate(control, model=pretrained, samples=24, sampler=sampler, batch_size=8)
    assert drawn.success == 1.0
    assert len({len(one.words) for one in drawn}) > 1 or "Length" in repr(control)


def test_a_draw_whose_layout_fits_keeps_it(pretrained):
    control = Infill("Anna ___{1,9} .") & Contains(PHRASE)
    plan = plan_of(control, pretrained)
    kept = 0
    for sample in range(24):
        draw = Draw(0, sample)
        first, found = layout_of(plan, draw), redraw.fitting_layout(plan, draw)
        assert found.words >= 6
        kept += first == found
        assert first.words < 6 or found.words == first.words
        assert found == redraw.fitting_layout(plan, draw)
    assert 0 < kept < 24


def test_no_new_layout_if_all_fit(pretrained, monkeypatch):
    from dlmctl.sampling import possible_draws

    monkeypatch.setattr(possible_draws, "fitting_layout", None)
    assert generate(Infill("Anna ___{1,9} .") & Contains("river"), model=pretrained, samples=8, sampler=QUICK)


def test_controls_that_no_layout_fits_are_refused(pretrained):
    control = Infill("Anna ___{1,9} .") & Lexicon(where={"place": -1}, words=["old"])
    with pytest.raises(RecipeError, match=r"no word is left .* No other number of words has one either\."):
        generate(control, model=pretrained, samples=2, sampler=QUICK)
    with pytest.raises(RecipeError, match="no text") as error:
        generate(Infill("the ___{2} .") & Contains(PHRASE), model=pretrained, samples=2, sampler=QUICK)
    assert "No other number" not in str(error.value)


def test_a_word_count_excluded_by_not_is_not_used(pretrained):
    control = All([Infill("Anna ___{1,9} ."), Contains(PHRASE), ~Length(6), ~Length(8, tolerance=1)])
    drawn = generate(control, model=pretrained, samples=12, sampler=QUICK)
    assert {len(one.words) for one in drawn} <= {10, 11}


def test_every_row_of_a_table_is_drawn(model_folder):
    rows = [
        {"p": "near the old river"},
        {"p": "near"},
        {"p": "two grey cats near"},
        {"p": "the the the the the the the"},
    ]
    controls = [{"infill": "Anna ___{1,5} ."}, {"contains": ["{p}"]}]
    recipe, origin = validated(
        {"model": str(model_folder), "samples": 4, "targets": rows, "controls": controls, "sampler": {"steps": 2}}
    )
    drawn = run_recipe(recipe, origin=origin)
    assert [one.passed for one in drawn] == [True] * 12 + [False] * 4
    assert all("could" in one.unmet or "words" in one.unmet for one in drawn[12:])


def test_impossible_draws_are_reported_for_each_sample(pretrained):
    control = Infill.each([Infill.Params(template=t) for t in ("Anna ___{1,9} .", "Anna ___ .")]) & Contains(PHRASE)
    assert list(impossible_draws(plan_of(control, pretrained), [Draw(0, sample) for sample in range(8)])) == [
        1,
        3,
        5,
        7,
    ]


def test_an_unknown_word_is_not_a_question_of_length(pretrained):
    with pytest.raises(UserError, match="xyzzy"):
        generate(Infill("Anna ___{1,9} .") & Contains("xyzzy"), model=pretrained, samples=2, sampler=QUICK)
