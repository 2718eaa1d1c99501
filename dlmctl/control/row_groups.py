"""Guidance of a batch whose rows need different preparation, such as different weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext, ControlState, P

K = TypeVar("K", bound=Hashable)


def grouped(batch: BatchContext[P], keys: Sequence[K], prepare: Callable[[BatchContext[P], K], Prepared]) -> Prepared:
    """Guidance of a batch, with all rows of a key prepared together.

    Args:
        keys: for each row, the key of its guidance.
        prepare: prepares the rows of a key, with an energy or evidence; it must not restrict or constrain words.
    """
    groups = []
    for key in dict.fromkeys(keys):
        rows = [row for row, other in enumerate(keys) if other == key]
        groups.append((torch.tensor(rows, device=batch.device), prepare(_select_rows(batch, rows), key)))
    return groups[0][1] if len(groups) == 1 else _Grouped(batch, groups)


def _select_rows(batch: BatchContext[P], rows: Sequence[int]) -> BatchContext[P]:
    """Some rows of a batch, with the length of the whole batch."""
    draws, layouts = [batch.draws[row] for row in rows], [batch.layouts[row] for row in rows]
    params = [batch.params[row] for row in rows]
    return replace(batch, draws=draws, layouts=layouts, params=params, least_length=batch.length)


class _Grouped(Prepared):
    """Groups of rows ``[R]``, each with its own guidance."""

    def __init__(self, batch: BatchContext[P], groups: Sequence[tuple[Tensor, Prepared]]) -> None:
        self.groups = groups
        with_evidence = [(rows, prepared.evidence) for rows, prepared in groups if prepared.evidence is not None]
        if len(with_evidence) == len(groups):
            self.evidence = torch.zeros(len(batch), *with_evidence[0][1].shape[1:], device=batch.device)
            for rows, evidence in with_evidence:
                self.evidence[rows] = evidence
        self.looks = any(prepared.looks for _, prepared in groups)
        self.weighs = all(prepared.weighs for _, prepared in groups)
        tags: list[Sequence[str]] = [()] * len(batch)
        for rows, prepared in groups:
            for row, row_tags in zip(rows.tolist(), prepared.tags or (), strict=False):
                tags[row] = row_tags
        self.tags = tags if any(tags) else None
        with_hints = [(rows, prepared.hints) for rows, prepared in groups if prepared.hints is not None]
        if with_hints:
            first = with_hints[0][1]
            self.hints = first.new_zeros(first.shape[0], len(batch), *first.shape[2:])
            for rows, hints in with_hints:
                self.hints[:, rows] = hints

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        evidence = torch.zeros_like(probabilities)
        for rows, prepared in self.groups:
            evidence[rows] = prepared.evidence_given(probabilities[rows])
        return evidence

    def energy(self, state: ControlState) -> Tensor:
        energies = state.x.new_zeros(len(state.x))
        for rows, prepared in self.groups:
            energies = energies.index_add(0, rows, prepared.energy(state.part(rows)))
        return energies
