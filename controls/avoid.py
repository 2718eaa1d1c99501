"""Words and phrases that a text must not have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.automata import Alphabet, Automaton, Requirement, avoiding, exact_control

from .phrases import ANY_NUMBER, MOST_PHRASES, Phrases, Split, WordControl, listed, occurrences, split_phrases, standing


class AvoidParams(ControlParams):
    """What a recipe says of unwanted words."""

    words: Phrases = Field(
        max_length=MOST_PHRASES,
        description="words or phrases, none of which may occur; matched as whole words, upper and lower case as "
        "written, so list both where both are unwanted",
        examples=[["pub", "city centre"]],
    )


class Avoid(WordControl[AvoidParams]):
    """Keeps every text free of the phrases, exactly."""

    name = "avoid"
    Params = AvoidParams

    def __init__(self, *phrases: str | Sequence[str], **params: Any) -> None:
        """One phrase or several, or a list of them."""
        super().__init__(**({"words": listed(phrases)} if phrases else {}), **params)

    def word_range(self, params: AvoidParams) -> tuple[int, int]:
        """Any number, but a settled one: no START or PAD among the words, which would break a phrase up unseen."""
        return 1, ANY_NUMBER

    def prepare(self, batch: BatchContext[AvoidParams]) -> Prepared:
        return exact_control(batch, [self.asked(params) for params in batch.params])

    def asked(self, params: AvoidParams) -> Requirement:
        phrases = tuple(dict.fromkeys(tuple(one) for form in self.forms for one in split_phrases(params.words, form)))

        def language(alphabet: Alphabet) -> Automaton | None:
            # A word outside the vocabulary cannot occur, nor can a phrase with one.
            found = [ids for phrase in phrases if (ids := alphabet.numbers(phrase)) is not None]
            return avoiding(alphabet, found) if found else None

        return Requirement(self.name, phrases, tuple(itertools.chain(*phrases)), language, needs_words=False)

    def check(self, params: AvoidParams, words: Sequence[str]) -> Check:
        """Passed if none of the phrases occurs; the score is the share of those that do not."""
        return min((_verdict(params.words, split, words) for split in self.forms), key=standing)

    @classmethod
    def from_target(cls, record: Any) -> AvoidParams:
        """The parameters that a line of a file of targets holds."""
        return AvoidParams.model_validate(record)


def _verdict(phrases: Sequence[str], split: Split, words: Sequence[str]) -> Check:
    each = split_phrases(phrases, split)
    places = [occurrences(words, phrase) for phrase in each]
    found = [text for text, at in zip(phrases, places, strict=True) if at]
    spans = [(start, len(phrase)) for at, phrase in zip(places, each, strict=True) for start in at]
    where = {place for start, size in spans for place in range(start, start + size)}
    why = f"with {', '.join(map(repr, found))}" if found else "none there"
    marks = tuple(Mark(start, start + size - 1, met=False) for start, size in spans)
    return Check(1 - len(found) / len(phrases), not found, why, tuple(sorted(where)), marks)
