"""Words that are kept at their places while the others are open: what a text is filled anew with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Self

from pydantic import Field

from dlmctl.control.allowed import only_words
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext


class KeptParams(ControlParams):
    """The words of a text, None where one is open."""

    words: list[str | None] = Field(min_length=1)

    @classmethod
    def around(cls, words: Sequence[str], opened: Collection[int]) -> Self:
        """The words of a text but those at some places; of a text without words one place, which is open."""
        return cls(words=[None if place in opened else word for place, word in enumerate(words)] or [None])


class KeptWords(Control[KeptParams]):
    """Holds each text to words as a tokeniser has them, exactly; unlike a template it does not split them again."""

    name = "frame"
    Params = KeptParams

    @classmethod
    def by_sample(cls, kept: Mapping[int, KeptParams]) -> KeptWords:
        """The words of some samples by their numbers; no other ones may be drawn."""
        made = cls(words=[None])
        made.sets, made.places = tuple(kept.values()), {sample: at for at, sample in enumerate(kept)}
        return made

    def word_range(self, params: KeptParams) -> tuple[int, int]:
        return len(params.words), len(params.words)

    def prepare(self, batch: BatchContext[KeptParams]) -> Prepared:
        return only_words(batch, [params.words for params in batch.params], self.name)

    def check(self, params: KeptParams, words: Sequence[str]) -> Check:
        """Passed if every word that was to stay is at its place; the score is the share of those that are."""
        if len(words) != len(params.words):
            return Check(0.0, False, f"{len(words)} words in place of {len(params.words)}")
        pairs = list(enumerate(zip(params.words, words, strict=True)))
        where = tuple(at for at, (kept, word) in pairs if kept is not None and kept != word)
        score = 1 - len(where) / max(1, sum(word is not None for word in params.words))
        return Check(score, not where, f"{len(where)} words were exchanged" if where else "all others kept", where)
