"""A regular expression over words that the whole text must match."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydantic import Field, field_validator

from dlmctl import Check, ControlParams
from dlmctl.control.automata import escaped, parse
from dlmctl.control.automata.syntax import CLASSES, Node, match
from dlmctl.text.spelling import split_words

from .phrases import Split, TreeControl, check_rank

# Anchors at the ends, as in other regular expressions; alone these characters are words.
_ANCHORS = re.compile(r"^\^[^\s|)*+?{]|[.!?>)*+]\$$")


class PatternParams(ControlParams):
    """The pattern."""

    match: str = Field(
        description="a regular expression over words: words as written, (a|b) for alternatives, * + ? {2} {1,3} {2,} "
        f"for repetition, {', '.join(f'<{name}>' for name in CLASSES)} for any word of a class; punctuation marks are "
        "separate words, and a backslash makes a special character literal",
        examples=["The <any>{1,2} (is|was) (a|an) <any>* (pub|restaurant) ."],
    )

    @field_validator("match")
    @classmethod
    def _parses(cls, match: str) -> str:
        if _ANCHORS.search(match):
            raise ValueError("the pattern always matches the whole text, so leave out ^ and $")
        parse(match, split_words)
        return match


class Pattern(TreeControl[PatternParams]):
    """Guarantees that the whole of every text matches a pattern, also in combination with other controls."""

    name = "pattern"
    Params = PatternParams

    def tree(self, params: PatternParams, split: Split) -> Node:
        return parse(params.match, split)

    def check(self, params: PatternParams, words: Sequence[str]) -> Check:
        """Whether the whole text matches, without the automaton that guided; if not, the share of words before the one
        at which every match fails, and that word."""
        return max((_verdict(tree, words) for tree in self._trees(params)), key=check_rank)

    def _trees(self, params: PatternParams) -> Iterator[Node]:
        for split in self.splits:
            try:
                yield self.tree(params, split)
            except ValueError:  # a repeated word splits in two: no pattern for texts with this split
                if len(self.splits) == 1:
                    raise

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[PatternParams]:
        """The first and the last word of each sentence, with any words between."""
        return [PatternParams(match=_framed(words)) for words in sentences]


def _verdict(tree: Node, words: Sequence[str]) -> Check:
    matches, prefix = match(tree, tuple(words))
    if matches:
        return Check(1.0, True, "the pattern is met")
    if prefix == len(words):
        return Check(prefix / (prefix + 1), False, "the text ends before the pattern does")
    return Check(prefix / len(words), False, f"{words[prefix]!r} does not fit as word {prefix + 1}", (prefix,))


def _framed(words: Sequence[str]) -> str:
    first, *others = [escaped(word) for word in words]
    return f"{first} <any>* {others[-1]}" if others else first
