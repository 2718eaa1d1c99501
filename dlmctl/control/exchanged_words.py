"""A control that leaves some places of a text a choice of words, for the words exchanged in matched sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch

from dlmctl.control.allowed import Allowed
from dlmctl.control.automata import alphabet_of
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext


class ExchangedParams(ControlParams):
    """The words that each place may have; places count from 1, or from the end as -1, -2, ..."""

    words: dict[int, frozenset[str]]

    def at(self, count: int) -> dict[int, frozenset[str]]:
        """The words by place, from 0, in a text of ``count`` words; places beyond its ends are left out."""
        by_index = {place - 1 if place > 0 else count + place: words for place, words in self.words.items()}
        return {index: words for index, words in by_index.items() if 0 <= index < count}


class ExchangedWords(Control[ExchangedParams]):
    """Restricts places to lists of words, exactly."""

    name = "control_for"
    Params = ExchangedParams

    @classmethod
    def by_sample(cls, words: Mapping[int, Mapping[int, frozenset[str]]]) -> Self:
        """A control with the words by place of each sample, by sample number; no other samples may be drawn."""
        control = cls(words={})
        # Unvalidated, as validation would copy the words, which many samples share.
        control.sets = tuple(ExchangedParams.model_construct(words=dict(places)) for places in words.values())
        control.places = {sample: at for at, sample in enumerate(words)}
        return control

    def prepare(self, batch: BatchContext[ExchangedParams]) -> Prepared:
        names = alphabet_of(batch.vocabulary).words
        banned = np.zeros((len(batch), batch.length, len(names)), bool)
        for row, (params, layout) in enumerate(zip(batch.params, batch.layouts, strict=True)):
            for index, words in params.at(layout.open).items():
                banned[row, index + 1] = [name not in words for name in names]
        return Allowed(torch.from_numpy(banned).to(batch.device))

    def check(self, params: ExchangedParams, words: Sequence[str]) -> Check:
        """Passed if every place has one of its words; the score is the share of those that do."""
        places = params.at(len(words))
        where = tuple(index for index, allowed in places.items() if words[index] not in allowed)
        score = 1 - len(where) / max(1, len(places))
        return Check(score, not where, "beyond a tolerance" if where else "within the tolerances", where)
