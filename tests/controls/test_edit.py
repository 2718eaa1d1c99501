"""Editing a text: at most a few words change, wherever other controls need it."""

import pytest

from controls import Avoid, Contains, Edit, Length, Pattern
from controls.edit import EditParams
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.errors import ModelError, RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from tests.tokens.tokenizers_of_all_kinds import model_of

QUICK = SamplerSettings(steps=4)
TEXT = "Anna paints two grey cats near the old bridge."


def drawn(model, control, samples=12, **options):
    return generate(control, model=model, samples=samples, sampler=QUICK, **options)


def changed(words, text):
    return sum(old != new for old, new in zip(text, words, strict=True))


@pytest.fixture(scope="module")
def everyday():
    return from_pretrained("everyday")


@pytest.mark.parametrize("changes", [1, 3])
def test_at_most_so_many_words_change_and_drafts_differ_in_which(pretrained, changes):
    text = pretrained.tokenizer.split(TEXT)
    result = drawn(pretrained, Edit(TEXT, changes), samples=40)
    assert result.success == 1.0
    assert all(changed(sample.words, text) <= changes for sample in result)
    places = {
        at for sample in result for at, (old, new) in enumerate(zip(text, sample.words, strict=True)) if old != new
    }
    assert len(places) > len(text) // 2


@pytest.mark.parametrize(
    "other",
    [
        Avoid("Anna", "grey cats"),
        Contains("bread"),
        Contains("garden", "bread"),
        Pattern("<any>* river ."),
        ~Contains("old"),
        Edit("Anna paints two old cats near the old bridge.", 2),
    ],
)
def test_what_other_controls_need_changes_and_no_more_than_may(pretrained, other):
    result = drawn(pretrained, Edit(TEXT, 2) & other)
    assert result.success == 1.0
    assert all(changed(sample.words, pretrained.tokenizer.split(TEXT)) <= 2 for sample in result)


def test_a_masked_model_takes_a_step_for_each_open_word_only(everyday):
    steps = []
    result = generate(
        Edit("The man walked to the river near the house.", 2),
        model=everyday,
        samples=4,
        sampler={"steps": None},
        on_step=lambda step: steps.append(step.t),
    )
    assert result.success == 1.0
    assert len(steps) <= 2


def test_under_not_a_text_differs_in_more_words(pretrained):
    result = drawn(pretrained, ~Edit(TEXT, 2) & Length(10))
    assert result.success == 1.0
    assert all(changed(sample.words, pretrained.tokenizer.split(TEXT)) > 2 for sample in result)


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (Edit("Anna paints two zorbles."), "edit: the word 'zorbles' is not among"),
        (Edit(TEXT, 1) & Contains("garden", "bread"), "no text of 10 words is left"),
        (Edit(TEXT, 1) & Length(12), "at least 12 words, another at most 10"),
    ],
)
def test_what_cannot_be_is_said(pretrained, control, said):
    with pytest.raises(RecipeError, match=said):
        drawn(pretrained, control, samples=1)


def test_pieces_of_words_are_refused():
    with pytest.raises(ModelError, match="what the control 'edit' keeps is of words"):
        drawn(model_of("word pieces"), Edit("Anna paints cats."), samples=1)


@pytest.mark.parametrize(("text", "changes"), [("", 1), (" ", 1), (TEXT, 0), (TEXT, 101)])
def test_parameters_that_mean_nothing_are_refused(text, changes):
    with pytest.raises(UserError):
        Edit(text, changes)


def test_the_verdict_names_what_changed():
    control = Edit("The cat sleeps.", 1)
    check = control(["The", "dog", "sleeps", "."])
    assert (check.passed, check.score, check.why, check.where) == (True, 0.75, "1 of 4 words changed", ())
    assert [mark.to_list() for mark in check.marks] == [[1, 1, "cat"]]
    check = control(["A", "dog", "sleeps", "."])
    assert (check.passed, check.score, check.where) == (False, 0.5, (0, 1))
    assert check.why == "2 of 4 words changed, at most 1 may"
    assert control(["The", "cat", "sleeps"]).why == "3 words, not the 4 of the text"
    assert EditParams.model_validate({"text": "a"}).changes == 3
