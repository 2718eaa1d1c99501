"""Transitions of a batch of automata that are followed one by one."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Arcs(NamedTuple):
    """Some transitions of a batch, by the state before them, each with W labels in a row (classes or groups).

    States and labels are numbered through the batch: those of row 1 follow those of row 0.

    Attributes:
        source: ``[K]``, the state before them.
        target: ``[K, W]``, the states after them.
        label: ``[K]``, the first of their labels, divided by W.
    """

    source: Tensor
    target: Tensor
    label: Tensor
