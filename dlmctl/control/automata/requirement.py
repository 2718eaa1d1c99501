"""What a control asks of the words of a text, whatever the tokens of the model."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from dlmctl.control.automata.dfa import Automaton
from dlmctl.control.automata.languages import Alphabet, length, pattern
from dlmctl.control.automata.syntax import Literal, Node, labels


class Requirement(NamedTuple):
    """What one control asks of the words of one text.

    Attributes:
        name: of the control, for messages.
        key: tells it apart from all others, with the name.
        words: that it names.
        language: makes the automaton over an alphabet; None where all is asked by ``phrases``. It may give None where
            nothing is asked of texts over that alphabet.
        phrases: words of phrases that are all to occur, in any order.
        needs_words: whether no text can be had without each of the words.
    """

    name: str
    key: Hashable
    words: tuple[str, ...] = ()
    language: Callable[[Alphabet], Automaton | None] | None = None
    phrases: tuple[tuple[str, ...], ...] = ()
    needs_words: bool = True


def pattern_requirement(name: str, tree: Node) -> Requirement:
    """A pattern that the whole text matches."""
    words = tuple(dict.fromkeys(label.word for label in labels(tree) if isinstance(label, Literal)))
    return Requirement(name, tree, words, lambda alphabet: pattern(tree, alphabet))


def required_length(least: int, most: int) -> Requirement:
    """A number of words."""
    return Requirement("length", (least, most), language=lambda alphabet: length(alphabet, least, most))
