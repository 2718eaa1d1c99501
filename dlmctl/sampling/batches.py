"""How texts are grouped into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw

# The fixed cost of a batch, in positions (rows x length): on a CPU, and on an H100, where few texts take nearly as long
# as many.
BATCH_COST, BATCH_COST_GPU = 400, 15_000

# Word scores in float32 (24 MiB) beyond which each position of a batch costs twice as much on a CPU: the C library
# returns the memory of such tensors to the system whenever one is freed, and the system clears it anew for the next.
CHEAP_SCORES = 6_000_000


Batch = list[tuple[Draw, Layout]]


def batch_size_for(rows: int) -> int:
    """The number of rows, rounded up to the next quarter between powers of two.

    The matrix library makes kernels for every new shape, which cost time and stay in memory, so shapes must be few.
    """
    quarter = max(1, (1 << (rows - 1).bit_length()) // 8)
    return -(-rows // quarter) * quarter


def batches_of(
    rows: Batch, max_rows: int, *, mixed: bool, batch_cost: int = BATCH_COST, cheap_positions: float = float("inf")
) -> list[Batch]:
    """Rows, sorted by their positions, in batches of at most ``max_rows``, split to take the least total time.

    If there are more than ``max_rows``, batches have the sizes that ``batch_size_for`` returns, or ``max_rows``.

    Args:
        mixed: whether rows of different lengths may share a batch, with the shorter ones masked.
        batch_cost: the fixed cost of a batch, in positions.
        cheap_positions: the size in positions beyond which each position of a batch costs twice as much.
    """
    sizes: Sequence[int] = range(1, max_rows + 1)
    if len(rows) > max_rows:
        sizes = sorted({min(batch_size_for(size), max_rows) for size in sizes})
    # The largest first, so that ties go to the larger batch.
    by_size = np.array(sizes[::-1])
    positions = np.array([layout.positions for _, layout in rows])
    costs, starts = np.zeros(len(rows) + 1), [0]
    for end in range(1, len(rows) + 1):
        fitting = by_size[by_size <= end]
        size = fitting * positions[end - 1]
        candidates = costs[end - fitting] + batch_cost + np.where(size > cheap_positions, 2 * size, size)
        if not mixed:
            candidates[positions[end - fitting] != positions[end - 1]] = np.inf
        best = candidates.argmin()
        costs[end] = candidates[best]
        starts.append(end - int(fitting[best]))
    batches: list[Batch] = []
    end = len(rows)
    while end:
        batches.insert(0, rows[starts[end] : end])
        end = starts[end]
    return batches
