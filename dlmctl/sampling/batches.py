"""Which texts are drawn together."""

from __future__ import annotations

from collections.abc import Sequence

from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw

# What a batch costs beside its positions (rows x length), in positions. Measured on a CPU.
BATCH_COST = 400


Batch = list[tuple[Draw, Layout]]


def batch_size_for(rows: int) -> int:
    """The size of a batch that still has so many rows to draw: up to the next quarter between powers of two.

    For every new shape the matrix library makes kernels, which cost time and stay in memory, so shapes must be few.
    """
    quarter = max(1, (1 << (rows - 1).bit_length()) // 8)
    return -(-rows // quarter) * quarter


def batches_of(rows: Batch, most: int, *, mixed: bool) -> list[Batch]:
    """Rows, sorted by their positions, in batches of at most ``most``, split where that costs the least time in all.

    Rows for more than one batch make batches of the sizes that ``batch_size_for`` gives, and ``most``.

    Args:
        mixed: whether rows of different lengths may share a batch, the shorter ones masked.
    """
    sizes: Sequence[int] = range(1, most + 1)
    if len(rows) > most:
        sizes = sorted({min(batch_size_for(size), most) for size in sizes})
    costs, starts = [0.0], [0]
    for end in range(1, len(rows) + 1):
        positions = rows[end - 1][1].positions
        found = [
            (costs[end - size] + BATCH_COST + size * positions, end - size)
            for size in sizes
            if size <= end and (mixed or rows[end - size][1].positions == positions)
        ]
        cost, start = min(found)
        costs.append(cost)
        starts.append(start)
    batches: list[Batch] = []
    end = len(rows)
    while end:
        batches.insert(0, rows[starts[end] : end])
        end = starts[end]
    return batches
