"""A regular expression over words that the whole text matches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydantic import Field, field_validator

from dlmctl import Check, ControlParams
from dlmctl.control.automata import escaped, parse
from dlmctl.control.automata.syntax import CLASSES, Node, match
from dlmctl.text.spelling import split_words

from .phrases import Split, TreeControl, standing

# As other regular expressions have them at the ends; alone they are words.
_ANCHORS = re.compile(r"^\^[^\s|)*+?{]|[.!?>)*+]\$$")


class PatternParams(ControlParams):
    """What a recipe says of a pattern."""

    match: str = Field(
        description="a regular expression over words: words as written, (a|b) for alternatives, * + ? {2} {1,3} {2,} "
        f"for repeats, {', '.join(f'<{name}>' for name in CLASSES)} for any word of a class; punctuation marks are "
        "words of their own, and a backslash takes a special character as it is written",
        examples=["The <any>{1,2} (is|was) (a|an) <any>* (pub|restaurant) ."],
    )

    @field_validator("match")
    @classmethod
    def _parses(cls, match: str) -> str:
        if _ANCHORS.search(match):
            raise ValueError("the whole text is to match as it is, so leave out ^ and $")
        parse(match, split_words)
        return match


class Pattern(TreeControl[PatternParams]):
    """Holds every text to a pattern, exactly: the whole text matches, whatever else is asked for."""

    name = "pattern"
    Params = PatternParams

    def tree(self, params: PatternParams, split: Split) -> Node:
        return parse(params.match, split)

    def check(self, params: PatternParams, words: Sequence[str]) -> Check:
        """Whether the whole text matches, without the automaton that guided; else the share of words up to where no
        match can go on, and the word there."""
        return max((_verdict(tree, words) for tree in self._trees(params)), key=standing)

    def _trees(self, params: PatternParams) -> Iterator[Node]:
        for split in self.splits:
            try:
                yield self.tree(params, split)
            except ValueError:  # two words where one is repeated: no pattern for texts that are split so
                if len(self.splits) == 1:
                    raise

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[PatternParams]:
        """The first and the last word of each sentence, any words between."""
        return [PatternParams(match=_framed(words)) for words in sentences]


def _verdict(tree: Node, words: Sequence[str]) -> Check:
    met, good = match(tree, tuple(words))
    if met:
        return Check(1.0, True, "the pattern is met")
    if good == len(words):
        return Check(good / (good + 1), False, "the text ends before the pattern does")
    return Check(good / len(words), False, f"{words[good]!r} does not fit as word {good + 1}", (good,))


def _framed(words: Sequence[str]) -> str:
    first, *others = [escaped(word) for word in words]
    return f"{first} <any>* {others[-1]}" if others else first
