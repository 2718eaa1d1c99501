"""Words and phrases that a text must not contain."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.automata import Alphabet, Automaton, Requirement, avoiding, exact_control

from .phrases import (
    ANY_NUMBER,
    MAX_PHRASES,
    Phrases,
    WordControl,
    check_rank,
    occurrences,
    phrase_list,
)


class AvoidParams(ControlParams):
    """The unwanted words and phrases."""

    words: Phrases = Field(
        max_length=MAX_PHRASES,
        description="words or phrases, none of which may occur; matched as whole words and case-sensitively, so list "
        "both spellings if both are unwanted",
        examples=[["pub", "city centre"]],
    )


class Avoid(WordControl[AvoidParams]):
    """Excludes the phrases from every text, exactly."""

    name = "avoid"
    Params = AvoidParams

    def __init__(self, *phrases: str | Iterable[str], **params: Any) -> None:
        """One or several phrases, or a list of them."""
        super().__init__(**({"words": phrase_list(phrases)} if phrases else {}), **params)

    def word_range(self, params: AvoidParams) -> tuple[int, int]:
        """Any number of words, but a fixed one: a START or PAD among the words would hide a phrase by splitting it."""
        return 1, ANY_NUMBER

    def prepare(self, batch: BatchContext[AvoidParams]) -> Prepared:
        return exact_control(batch, [self._requirement(params) for params in batch.params])

    def _requirement(self, params: AvoidParams) -> Requirement:
        phrases = tuple(dict.fromkeys(itertools.chain(*self.splittings(params.words))))

        def language(alphabet: Alphabet) -> Automaton | None:
            # A phrase with a word outside the vocabulary cannot occur.
            known = [ids for phrase in phrases if (ids := alphabet.numbers(phrase)) is not None]
            return avoiding(alphabet, known) if known else None

        return Requirement(self.name, phrases, tuple(itertools.chain(*phrases)), language, needs_words=False)

    def check(self, params: AvoidParams, words: Sequence[str]) -> Check:
        """Passed if none of the phrases occurs; the score is the share of those that do not."""
        splittings = self.splittings(params.words)
        return min((_verdict(params.words, splitting, words) for splitting in splittings), key=check_rank)

    @classmethod
    def from_target(cls, record: Any) -> AvoidParams:
        """The parameters in a line of a file of targets."""
        return AvoidParams.model_validate(record)


def _verdict(phrases: Sequence[str], phrase_words: Sequence[Sequence[str]], words: Sequence[str]) -> Check:
    starts = [occurrences(words, phrase) for phrase in phrase_words]
    present = [text for text, at in zip(phrases, starts, strict=True) if at]
    spans = [(start, len(phrase)) for at, phrase in zip(starts, phrase_words, strict=True) for start in at]
    where = {position for start, size in spans for position in range(start, start + size)}
    why = f"with {', '.join(map(repr, present))}" if present else "none there"
    marks = tuple(Mark(start, start + size - 1, met=False) for start, size in spans)
    return Check(1 - len(present) / len(phrases), not present, why, tuple(sorted(where)), marks)
