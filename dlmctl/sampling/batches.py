"""Which texts are drawn together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw

# What a batch costs beside its positions (rows x length), in positions: on a CPU, and on an H100, where few texts take
# nearly as long as many.
BATCH_COST, BATCH_COST_GPU = 400, 15_000

# Scores of words in float32 (24 MiB) beyond which each position of a batch costs twice on a CPU: the C library gives
# the memory of such tensors back whenever one is freed, and the system clears it anew for the next.
ROOM = 6_000_000


Batch = list[tuple[Draw, Layout]]


def batch_size_for(rows: int) -> int:
    """The size of a batch that still has so many rows to draw: up to the next quarter between powers of two.

    For every new shape the matrix library makes kernels, which cost time and stay in memory, so shapes must be few.
    """
    quarter = max(1, (1 << (rows - 1).bit_length()) // 8)
    return -(-rows // quarter) * quarter


def batches_of(
    rows: Batch, most: int, *, mixed: bool, cost: int = BATCH_COST, room: float = float("inf")
) -> list[Batch]:
    """Rows, sorted by their positions, in batches of at most ``most``, split where that costs the least time in all.

    Rows for more than one batch make batches of the sizes that ``batch_size_for`` gives, and ``most``.

    Args:
        mixed: whether rows of different lengths may share a batch, the shorter ones masked.
        cost: of a batch beside its positions, in positions.
        room: positions beyond which a batch costs twice as much for each.
    """
    sizes: Sequence[int] = range(1, most + 1)
    if len(rows) > most:
        sizes = sorted({min(batch_size_for(size), most) for size in sizes})
    # The largest first, so that of two that cost the same the larger batch is taken.
    by_size = np.array(sizes[::-1])
    positions = np.array([layout.positions for _, layout in rows])
    costs, starts = np.zeros(len(rows) + 1), [0]
    for end in range(1, len(rows) + 1):
        fitting = by_size[by_size <= end]
        size = fitting * positions[end - 1]
        found = costs[end - fitting] + cost + np.where(size > room, 2 * size, size)
        if not mixed:
            found[positions[end - fitting] != positions[end - 1]] = np.inf
        best = found.argmin()
        costs[end] = found[best]
        starts.append(end - int(fitting[best]))
    batches: list[Batch] = []
    end = len(rows)
    while end:
        batches.insert(0, rows[starts[end] : end])
        end = starts[end]
    return batches
