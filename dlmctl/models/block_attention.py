"""Which positions attend to which, for networks whose texts may have padding on the left or blocks."""

from __future__ import annotations

from torch import Tensor


def positions_of(mask: Tensor) -> Tensor:
    """The number of each position ``[B, S]`` from the first of its row that ``mask [B, S]`` attends to, 0 before it: so
    padding on the left has no effect."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def attended_by_blocks(attended: Tensor, block: int, kept: int = 0) -> Tensor:
    """Which positions each of those after the first ``kept`` attends to, bool ``[B, 1, S - kept, S]``: its own block
    and those before it (Arriola et al. 2025).

    Args:
        attended: bool ``[B, S]``, false for padding.
        block: positions per block, counted as by ``positions_of``.
    """
    number = positions_of(attended) // block
    return attended[:, None, None] & (number[:, None, kept:, None] >= number[:, None, None, :])
