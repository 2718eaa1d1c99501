"""The requirement of a control on the words of a text, independent of the model's tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from dlmctl.control.automata.dfa import Automaton
from dlmctl.control.automata.languages import Alphabet, length, pattern
from dlmctl.control.automata.syntax import Literal, Node, labels
from dlmctl.text.tokenizer import HuggingFaceTokenizer


class Requirement(NamedTuple):
    """The requirement of one control on the words of one text.

    Attributes:
        name: name of the control, for messages.
        key: together with the name, identifies the requirement.
        words: the words that it names.
        language: builds the automaton over an alphabet; None if ``phrases`` are the only requirement. It may return
            None if texts over that alphabet always satisfy it.
        phrases: words of phrases that must all occur, in any order.
        needs_words: whether a text needs each of ``words``.
        over_tokens: builds the automaton over the tokens of a model that writes pieces of words, if it is not that over
            words, spelled out.
        fewer_over_tokens: builds the smaller automaton of some of these texts, for where that of all would be too large
            beside other requirements; None if there is none.
        weighs_lengths: whether it is about the text as a whole, so that numbers of tokens are weighed by how likely it
            is to hold; one that asks the same of every word would only make texts short.
        has_complement: whether the texts that are not in the language are those that violate the requirement.
        stands_alone: whether its automaton is no larger alone than beside one that limits the number of words.
        leaves_out: what its automaton over tokens leaves out besides, for the message where no text is left.
        written: texts and phrases of the recipe. Over tokens, words that are next to each other in them have their
            spaces, if there are such texts.
    """

    name: str
    key: Hashable
    words: tuple[str, ...] = ()
    language: Callable[[Alphabet], Automaton | None] | None = None
    phrases: tuple[tuple[str, ...], ...] = ()
    needs_words: bool = True
    over_tokens: Callable[[HuggingFaceTokenizer], Automaton] | None = None
    fewer_over_tokens: Callable[[HuggingFaceTokenizer], Automaton] | None = None
    weighs_lengths: bool = True
    has_complement: bool = True
    stands_alone: bool = True
    leaves_out: str = ""
    written: tuple[str, ...] = ()


def pattern_requirement(name: str, tree: Node, written: tuple[str, ...] = ()) -> Requirement:
    """The requirement that the whole text matches a pattern, with what is ``written`` in it."""
    words = tuple(dict.fromkeys(label.word for label in labels(tree) if isinstance(label, Literal)))
    return Requirement(name, tree, words, lambda alphabet: pattern(tree, alphabet), written=written)


def required_length(least: int, most: int | None) -> Requirement:
    """The requirement of ``least`` to ``most`` words; None for no maximum."""
    return Requirement("length", (least, most), language=lambda alphabet: length(alphabet, least, most))
