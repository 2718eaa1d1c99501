"""A control that keeps words at their positions while the others are open, for refilling parts of a text."""

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
    """The words of a text, with None for an open position."""

    words: list[str | None] = Field(min_length=1)

    @classmethod
    def around(cls, words: Sequence[str], opened: Collection[int]) -> Self:
        """The words of a text with the ``opened`` positions open; for a text without words one open position."""
        return cls(words=[None if position in opened else word for position, word in enumerate(words)] or [None])


class KeptWords(Control[KeptParams]):
    """Fixes words exactly, as entries of the tokeniser; unlike a template it does not split them again."""

    name = "frame"
    Params = KeptParams

    @classmethod
    def by_sample(cls, kept: Mapping[int, KeptParams]) -> KeptWords:
        """A control with the parameters of each sample, by sample number; no other samples may be drawn."""
        control = cls(words=[None])
        control.sets, control.places = tuple(kept.values()), {sample: at for at, sample in enumerate(kept)}
        return control

    def word_range(self, params: KeptParams) -> tuple[int, int]:
        return len(params.words), len(params.words)

    def prepare(self, batch: BatchContext[KeptParams]) -> Prepared:
        return only_words(batch, [params.words for params in batch.params], self.name)

    def check(self, params: KeptParams, words: Sequence[str]) -> Check:
        """Passed if every kept word is at its position; the score is the share of those that are."""
        if len(words) != len(params.words):
            return Check(0.0, False, f"{len(words)} words instead of {len(params.words)}")
        pairs = list(enumerate(zip(params.words, words, strict=True)))
        where = tuple(at for at, (kept, word) in pairs if kept is not None and kept != word)
        score = 1 - len(where) / max(1, sum(word is not None for word in params.words))
        return Check(score, not where, f"{len(where)} words were exchanged" if where else "all others kept", where)
