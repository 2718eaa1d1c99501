"""Editing a text: at most a few words change, wherever other controls need it."""

import pytest
import torch

from controls import Avoid, Classifier, Contains, Edit, Length, Lexicon, Pattern, Predicate
from controls.edit import EditParams
from controls.edit_distance import changes_between
from controls.edit_drafts import Draft, draft_of
from dlmctl import Check, Control, ControlParams, Prepared
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.automata import edits
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling import possible_draws

QUICK = SamplerSettings(steps=4)
TEXT = "Anna paints two grey cats near the old bridge."


def drawn(model, control, samples=12, **options):
    return generate(control, model=model, samples=samples, sampler=QUICK, **options)


def changed(words, text):
    return sum(old != new for old, new in zip(text, words, strict=True))


@pytest.fixture(scope="module")
def everyday():
    return from_pretrained("everyday")


def test_without_changes_a_text_is_only_checked(pretrained):
    judged = Predicate(function=lambda text: ("quiet" in text, "read"))
    result = drawn(pretrained, Edit(TEXT, 0) & judged, samples=2)
    assert all(changed(sample.words, pretrained.tokenizer.split(TEXT)) == 0 for sample in result)
    assert [sample.checks["check"].why for sample in result] == ["read", "read"]
    assert result.success == 0.0
    assert drawn(pretrained, ~Edit(TEXT, 0) & Edit(TEXT, 1), samples=4).success == 1.0


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


class Against(Control[ControlParams]):
    """Evidence against a word, as a control of a user may have it: fixed, or computed from the other words."""

    name, Params = "against", ControlParams
    word, nats, weighed = "Anna", 4.0, False

    def check(self, params, words):
        return Check(1.0, True, "")

    def prepare(self, batch):
        evidence = torch.zeros(len(batch), batch.length, len(batch.vocabulary), device=batch.device)
        evidence[..., batch.vocabulary.encode([self.word])[1]] = -self.nats
        prepared = Prepared()
        prepared.weighs = self.weighed
        if self.weighed:
            prepared.evidence_given = lambda probabilities: evidence
        else:
            prepared.evidence = evidence
        return prepared


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("tolerance", [0, 1])
def test_words_that_other_controls_are_against_are_exchanged_more_often(pretrained, monkeypatch, weighed, tolerance):
    monkeypatch.setattr(Against, "weighed", weighed)

    def share(nats, word="Anna"):
        monkeypatch.setattr(Against, "nats", nats)
        monkeypatch.setattr(Against, "word", word)
        result = drawn(pretrained, Edit(TEXT, 1, tolerance) & Against(), samples=60)
        return sum(word not in sample.words for sample in result) / 60

    assert share(4.0) > 2 * share(0.0)
    assert share(float("inf")) > 2 * share(0.0)
    assert share(4.0, "near") > 2 * share(0.0, "near")


def test_evidence_that_says_nothing_leaves_the_drafts_as_they_are(pretrained, monkeypatch):
    monkeypatch.setattr(Against, "nats", 0.0)
    alone, beside = (drawn(pretrained, control).texts for control in (Edit(TEXT, 2), Edit(TEXT, 2) & Against()))
    assert alone == beside


def test_the_words_that_a_label_hangs_on_are_exchanged_in_the_first_draft(everyday):
    """A statement becomes a question in 25 of 32 drafts; in 4 with places chosen at random."""
    control = Edit("There is no freedom of religion in this country.", 3) & Classifier("question", name="kind")
    assert generate(control, model=everyday, samples=32, candidates=1).success > 0.35


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


@pytest.mark.parametrize("tolerance", [1, 2])
def test_within_a_tolerance_words_are_inserted_and_removed_too(pretrained, tolerance):
    text = pretrained.tokenizer.split(TEXT)
    result = drawn(pretrained, Edit(TEXT, 3, tolerance), samples=40)
    assert result.success == 1.0
    found = [changes_between(text, sample.words) for sample in result]
    assert {len(sample.words) - len(text) for sample in result} == set(range(-tolerance, tolerance + 1))
    assert max(changes.total for changes in found) == 3
    assert len({place for changes in found for place in changes.inserted}) > len(text) // 2
    assert len({place for changes in found for place, _ in changes.removed}) > len(text) // 2
    assert any(changes.exchanged for changes in found)


@pytest.mark.parametrize(
    "other",
    [
        Contains("garden", "bread"),
        Pattern("<any>* river ."),
        Avoid("Anna", "grey cats"),
        Length(10),
        Length(12),
        Edit("Anna paints grey cats near the bridge.", 4, 2),
    ],
)
def test_what_other_controls_need_is_found_within_a_tolerance(pretrained, other):
    result = drawn(pretrained, Edit(TEXT, 3, 2) & other)
    assert result.success == 1.0


def test_a_draft_may_give_the_first_word_its_other_case():
    drafts = [draft_of(["The", "cat", "sleeps", "."], 3, 1, 5, Draw(0, sample)) for sample in range(60)]
    moved = [draft for draft in drafts if draft.words[0] is None and draft.recased is not None]
    assert moved
    assert all(draft.words[draft.recased] == "The" and draft.most <= 1 for draft in moved)
    assert all(len(draft.opened) <= draft.most for draft in drafts)
    removed = [draft_of(["The", "cat", "sleeps", "."], 3, 1, 3, Draw(0, sample)) for sample in range(60)]
    assert any(draft.words[:1] == ["cat"] and draft.recased == 0 for draft in removed)


def test_a_draft_as_long_as_the_text_may_have_a_word_removed_and_one_inserted():
    assert any(None in draft_of(list("abcd"), 3, 2, 4, Draw(0, sample)).words for sample in range(40))


def test_places_of_function_words_are_opened_less_often():
    words = ["the", "cats", "of", "bridges"]
    opened = [place for sample in range(300) for place in draft_of(words, 1, 0, 4, Draw(0, sample)).opened]
    share = sum(place in (0, 2) for place in opened) / len(opened)
    assert share == pytest.approx(0.3 / 1.3, abs=0.1)


def test_no_draft_of_a_tolerant_edit_has_more_changes_than_may_be():
    words = list("abcd")
    for sample in range(200):
        length = 2 + sample % 5
        draft = draft_of(words, 3, 2, length, Draw(0, sample))
        written = [word or "new" for word in draft.kept]
        if draft.recased is not None and draft.kept[draft.recased] is not None:
            written[draft.recased] = "other"
        assert len(written) == length
        assert changes_between(words, written).total <= 3


def test_words_that_others_rule_out_change_first():
    draft = Draft(["a", "b", None, "c"], [3], 2)
    assert draft.without([]) == draft
    assert draft.without([0]).kept == [None, "b", None, None]
    assert draft.without([0, 1]).kept == [None, None, None, "c"]
    assert draft.without([0, 1, 3]) == draft  # more than may change


@pytest.mark.parametrize(
    "other", [Lexicon(function_words=True, letters=[1, 5]), Avoid("paints"), Pattern("<any>* river .")]
)
def test_a_draft_without_what_others_rule_out_needs_no_other_layout(pretrained, monkeypatch, other):
    def unwanted(*_):
        pytest.fail("laid out anew")

    monkeypatch.setattr(possible_draws, "fitting_layout", unwanted)
    assert drawn(pretrained, Edit(TEXT, 3) & other).success == 1.0


@pytest.mark.parametrize("edit", [Edit(TEXT, 2), Edit(TEXT, 2, 1)])
def test_under_not_a_text_differs_in_more_words(pretrained, edit):
    result = drawn(pretrained, ~edit & Edit(TEXT, 3))
    assert result.success == 1.0
    text = pretrained.tokenizer.split(TEXT)
    assert all(changes_between(text, sample.words).total > 2 - edit.sets[0].tolerance for sample in result)
    assert all(changed(sample.words, text) == 3 for sample in result)


def test_under_not_a_text_may_be_shorter_than_any_edit(pretrained, monkeypatch):
    long = Draft([*[None] * 20, "Anna"], [], 1, recased=20)
    monkeypatch.setattr("controls.edit.draft_of", lambda *_: long)
    assert drawn(pretrained, ~Edit(TEXT, 4, 4) & Length(1)).success == 1.0


def test_under_not_a_text_with_unknown_words_excludes_what_is_left_of_it(pretrained, caplog):
    text = "Anna paints two zorbles near the old bridge."
    result = drawn(pretrained, ~Edit(text, 2) & Edit(TEXT.replace("grey ", ""), 2))
    assert result.success == 1.0
    assert "the word 'zorbles' is not among" in caplog.text
    assert all(changed(sample.words, pretrained.tokenizer.split(text)) == 3 for sample in result)


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (Edit("Anna paints two zorbles."), "edit: the word 'zorbles' is not among"),
        (Edit(TEXT, 1) & Contains("garden", "bread"), "no text of 10 words is left"),
        (Edit(TEXT, 1) & Length(12), "at least 12 words, another at most 10"),
        (Edit(TEXT, 2, 1) & Length(12), "at least 12 words, another at most 11"),
        (Edit(TEXT, 2, 2) & Contains("garden", "bread", "river"), "no text"),
    ],
)
def test_what_cannot_be_is_said(pretrained, control, said):
    with pytest.raises(RecipeError, match=said):
        drawn(pretrained, control, samples=1)


def test_a_draft_beside_drafts_that_are_too_many_to_try_is_not_called_impossible(pretrained, monkeypatch):
    control = Edit(TEXT, 4, 1) & Contains("garden", "bread")
    monkeypatch.setattr(edits, "is_too_large", lambda *_: True)
    with pytest.raises(RecipeError, match=r"whether another one does is too much to find out: .* Another seed may"):
        drawn(pretrained, control)
    monkeypatch.undo()
    assert drawn(pretrained, control).success == 1.0


@pytest.mark.parametrize(("text", "changes"), [("", 1), (" ", 1), (TEXT, -1), (TEXT, 101)])
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


def test_the_verdict_within_a_tolerance_marks_each_change():
    control = Edit("The old cat sleeps .", 2, 1)
    check = control("the cat sleeps .".split())
    assert (check.passed, check.score, check.why) == (True, 0.6, "1 word exchanged, 1 removed")
    assert [mark.to_list() for mark in check.marks] == [[0, 0, "The"], [1, 1, "without old"]]
    check = control("The very old cat sleeps here .".split())
    assert (check.passed, check.where) == (False, (1, 5))
    assert check.why == "2 words inserted: 7 words in place of 5, and the tolerance is 1"
    assert [mark.to_list() for mark in check.marks] == [[1, 1, "inserted"], [5, 5, "inserted"]]
    check = control("A dog sleeps now .".split())
    assert check.why == "4 words exchanged, at most 2 changes may be made"
    assert control("The old cat sleeps .".split()).why == "no word changed"
    check = control(["The", "old", "cat", "sleeps"])
    assert [mark.to_list() for mark in check.marks] == [[3, 3, "without ."]]


def test_more_tolerance_than_changes_is_refused():
    with pytest.raises(UserError, match="`tolerance: 3` needs as many `changes`, not 2"):
        Edit(TEXT, 2, 3)
