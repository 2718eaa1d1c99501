"""The automata of edits, against edit distances counted word by word."""

import itertools

import pytest

from controls.edit_distance import changes_between
from dlmctl.control.automata import Alphabet, TooLarge, complement, edited, exchanged

LETTERS = Alphabet([None, "a", "b", "c"])
TEXTS = [text for length in range(6) for text in itertools.product("abc", repeat=length)]


def accepted(automaton):
    return {text for text in TEXTS if automaton.accepts([LETTERS.ids[word] for word in text])}


@pytest.mark.parametrize("words", [("a",), ("a", "b", "a"), ("a", "a", "c", "b"), ("zorbles", "a", "b")])
@pytest.mark.parametrize(("changes", "tolerance"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3)])
def test_texts_within_the_edit_distance_and_the_tolerance_are_accepted(words, changes, tolerance):
    wanted = {
        text
        for text in TEXTS
        if abs(len(text) - len(words)) <= tolerance and changes_between(words, text).total <= changes
    }
    automaton = edited(LETTERS, words, changes, tolerance)
    assert accepted(automaton) == wanted
    assert accepted(complement(automaton)) == set(TEXTS) - wanted


@pytest.mark.parametrize("words", [("a", "b", "a"), ("zorbles", "a", "b"), ("zorbles", "zorbles", "a")])
def test_without_tolerance_words_are_exchanged_only(words):
    wanted = {
        text
        for text in TEXTS
        if len(text) == len(words) and sum(old != new for old, new in zip(words, text, strict=True)) <= 1
    }
    assert accepted(exchanged(LETTERS, words, 1)) == wanted


def test_places_too_far_from_the_end_make_no_states():
    """Without that, this automaton would be too large."""
    words = tuple(map(str, range(12)))
    assert len(edited(Alphabet([None, *words]), words, 5, 1).table) < 2000


def test_too_many_changes_are_refused_before_they_take_memory():
    alphabet = Alphabet([None, *map(str, range(30))])
    with pytest.raises(TooLarge, match="up to 10 changes make of a text of 30 words"):
        edited(alphabet, tuple(map(str, range(30))), 10, 10)
