"""Wrong arguments of callers and wrong results of authors' code give one message that names the control."""

import math

import numpy as np
import pytest
import torch

from controls import Avoid, Contains, Length, Lexicon, Pos, SyntaxTree
from controls.pos import TagLabels
from dlmctl.control.base import All, AnyOf, Control, ControlParams
from dlmctl.control.check import Check, Mark
from dlmctl.control.negation import PreparedNot
from dlmctl.control.prepared import Part, Prepared, PreparedAll
from dlmctl.diffusion.layout import Layout
from dlmctl.errors import UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from tests.conftest import batch_of

QUICK = SamplerSettings(steps=2, canvas="full")


class Known(Prepared):
    """Evidence as computed by an author."""

    def __init__(self, evidence):
        self.evidence = evidence


class Hints(Control[ControlParams]):
    """A correct control, into which the tests patch faults."""

    name = "hints"
    Params = ControlParams

    def prepare(self, batch):
        return Known(torch.zeros(len(batch), batch.length, batch.model.config.vocab_size))

    def check(self, params, words):
        return Check(1.0, True, "")


def message_of(call):
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


# Arguments of callers.


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1, 1e7, "x", None, True, [1]], ids=str)
def test_a_weight_is_a_number_that_recipes_take_too(weight):
    assert f"control 'length': a weight must be a number from 0 to 1000000, not {weight!r}" in message_of(
        lambda: Length(4) * weight
    )
    assert (np.float32(0.5) * Length(4)).weight == (0 * Length(4)).weight + 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Length("x"), "control 'length': words: Input should be a valid integer, not 'x'."),
        (lambda: Length((3, 5)), "not (3, 5). 3 to 5 is words=4, tolerance=1."),
        (lambda: SyntaxTree(spans=["NP 0 1"]), "not 'NP 0 1'. E.g. spans=[{'label': 'PP', 'start': 3, 'end': 5}]."),
        (lambda: Length(), "control 'length': words: Field required."),
        (lambda: Length(wrods=4), "control 'length': there is no parameter 'wrods'. Did you mean 'words'?"),
        (lambda: Length.each([]), "control 'length': there are no sets of parameters."),
        (
            lambda: Length.each([{"words": 5}, {"words": "x"}]),
            "control 'length': each[1]: words: Input should be a valid",
        ),
        (lambda: Length.each([5, Length(7)]), "each[1]: these are no parameters of this control: Length(words=7, "),
        (lambda: Length.each([5, Pos("DET").sets[0]]), "each[1]: these are no parameters of this control: PosParams("),
        (lambda: Length.each({"words": 5}), "control 'length': each: takes a list with the parameters of each text"),
        (lambda: Length.each(5), "control 'length': each: takes a list with the parameters of each text, not 5."),
        (lambda: Pos("dte noun"), "there is no UPOS tag 'dte'. Did you mean 'DET'?"),
        (lambda: AnyOf([]), "control 'any': needs controls inside."),
        (lambda: All([])(["a"]), "control 'all': needs controls inside."),
        (lambda: Length(4)("The dog ran ."), "control 'length': a text is given as a list of its words."),
    ],
)
def test_a_wrong_call_is_one_message(call, message):
    shown = message_of(call)
    assert message in shown
    assert "?." not in shown


def test_phrases_may_stand_in_a_list_and_sets_as_dicts():
    for kind in (Contains, Avoid):
        assert kind(["window", "door"]).sets == kind("window", "door").sets == kind(words=["window", "door"]).sets
        assert kind(words="window").sets == kind("window").sets
    assert [params.words for params in Length.each([{"words": 5}, {"words": 6}]).sets] == [5, 6]


def test_the_first_parameter_of_each_text_needs_no_name():
    assert Length.each(iter([5, np.int64(6)])).sets == Length.each([{"words": 5}, {"words": 6}]).sets
    each = Contains.each(["tea", ["cup", "pot"]])
    assert [params.words for params in each.sets] == [["tea"], ["cup", "pot"]]


def test_sets_of_words_are_lists_in_alphabetical_order():
    """The order of a set is another one in each process, and texts may follow from it."""
    words = ["cup", "pot", "tea"]
    for kind in (Contains, Avoid):
        assert kind({"tea", "pot", "cup"}).sets[0].words == kind(words=frozenset(words)).sets[0].words == words
    assert Lexicon(words={"tea", "pot", "cup"}).sets[0].words == words
    assert Contains(word for word in words).sets[0].words == words
    assert "words.0: Input should be a valid string, not {'tea': 1}" in message_of(lambda: Contains({"tea": 1}))


def test_controls_are_shown_as_they_are_written():
    assert repr(0.5 * Length(8) & ~Contains("tea")) == (
        "All([0.5 * Length(words=8, tolerance=0), Not(Contains(words=['tea']))])"
    )
    assert repr(Length.each([5, 7])) == "Length.each([{'words': 5}, {'words': 7}])"
    assert repr(Length.each(range(1, 100))).endswith("{'words': 3}, ... 96 more])")


def test_a_message_about_too_many_phrases_names_the_control(pretrained):
    words = "the small bakery sells warm bread a noisy garden hides two grey cats Anna".split()
    batch = batch_of(pretrained, 1, Layout(24, 20))
    with pytest.raises(UserError, match=r"^not contains: 14 phrases in any order are too many here"):
        (~Contains(words)).ready(batch)


class Unmade(Hints):
    def __init__(self):
        self.words = 5


def test_what_is_no_control_is_refused_with_the_way_to_one(pretrained):
    for value, remedy in [
        (len, "is not a control. A function that judges texts is one as Predicate(function)."),
        (Length, "is not a control. Give it its parameters: Length(...)."),
        (5, "5 is not a control. A control is an object such as"),
        (Unmade(), "Unmade has no parameters. Its `__init__` must call `super().__init__(...)` with them."),
    ]:
        assert remedy in message_of(lambda value=value: Length(4) & value)
        shown = message_of(lambda value=value: generate(value, model=pretrained, samples=1, sampler=QUICK))
        assert shown.startswith("control: ")
        assert remedy in shown


# Results of authors' code.


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (
            lambda shape: torch.full(shape, math.nan),
            "must be finite numbers, or -inf for some of the words at a position",
        ),
        (lambda shape: torch.full(shape, -math.inf), "must be finite numbers, or -inf for some"),
        (lambda shape: torch.full(shape, math.inf), "must be finite numbers, or -inf for some"),
        (lambda shape: torch.zeros(1, *shape[1:]), "must have the shape [2, 32, "),
        (lambda shape: torch.zeros(shape[:2]), "a number for each word at each position, not [2, 32]."),
        (lambda shape: 3.0, "a number for each word at each position, not float."),
    ],
)
def test_evidence_is_a_number_for_every_word(pretrained, monkeypatch, evidence, message):
    monkeypatch.setattr(
        Hints, "prepare", lambda self, batch: Known(evidence((len(batch), batch.length, batch.model.config.vocab_size)))
    )
    shown = message_of(lambda: generate(Hints(), model=pretrained, samples=2, sampler=QUICK))
    assert shown.startswith(f"control 'hints' ({__name__}): its evidence ")
    assert message in shown


@pytest.mark.parametrize("number", [math.inf, math.nan, -1.0])
def test_lengths_are_weights(monkeypatch, number):
    monkeypatch.setattr(Hints, "lengths", lambda self, params, most: [0, 1, number])
    shown = message_of(lambda: Hints().lengths_of(0, 3))
    assert shown == f"control 'hints' ({__name__}): lengths must return finite numbers, 0 or above, but returned " + (
        f"{number}."
    )


def test_evidence_given_is_that_of_every_text():
    prepared = Prepared()
    prepared.evidence_given = lambda probabilities: torch.zeros(1, 3, 4)
    with pytest.raises(
        UserError, match=r"'hints' .*evidence_given must return numbers of the shape \[2, 3, 4\], not \[1"
    ):
        Part("hints", 1.0, prepared).evidence_given(torch.zeros(2, 3, 4))


@pytest.mark.parametrize("combine", [lambda part: PreparedAll([part]), PreparedNot])
def test_a_phase_that_fails_is_one_message(combine):
    prepared = Prepared()
    prepared.phase = lambda t: 1 / 0
    with pytest.raises(UserError, match=r"control 'hints' .*: phase failed: ZeroDivisionError"):
        combine(Part("hints", 1.0, prepared)).phase(0.5)


def test_what_a_written_check_raises_is_not_taken_for_its_lack(monkeypatch):
    def check(self, params, words):
        raise NotImplementedError("only for questions")

    monkeypatch.setattr(Hints, "check", check)
    assert message_of(lambda: Hints()(["a"])).endswith("check failed: NotImplementedError: only for questions.")
    monkeypatch.delattr(Hints, "check")
    assert message_of(lambda: Hints()(["a"])).endswith("has no check.")


def test_places_outside_of_a_text_are_left_out(monkeypatch):
    marks = (Mark(0, 1), Mark(1, 2), Mark(-1, 0), Mark(1, 0), Mark(None, None, met=False, wanted="c"))
    monkeypatch.setattr(
        Hints, "check", lambda self, params, words: Check(0.0, False, "", where=(99, 1, -5, 2), marks=marks)
    )
    check = Hints()(["a", "b"])
    assert check.where == (1,)
    assert check.marks == (marks[0], marks[4])


def test_labels_that_are_none_are_refused_where_words_are_counted(pretrained):
    batch = batch_of(pretrained, 1, Layout(8, 2))
    for guidance in (TagLabels.by_counts, TagLabels.beside):
        with pytest.raises(UserError, match=r"there is no label 'VERBS'\. Did you mean 'VERB'"):
            guidance(pretrained.folder, batch, [["DET", "*|NOUN|VERBS"]])
