"""Which texts are drawn together."""

from __future__ import annotations

from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw

# What a batch costs beside its positions (rows x length), in positions. Measured on a CPU.
BATCH_COST = 400


Batch = list[tuple[Draw, Layout]]


def batches_of(rows: Batch, most: int, *, mixed: bool) -> list[Batch]:
    """Rows, sorted by their positions, in batches of at most ``most``, split where that costs the least time in all.

    Args:
        mixed: whether rows of different lengths may share a batch, the shorter ones masked.
    """
    costs, starts = [0.0], [0]
    for end in range(1, len(rows) + 1):
        positions = rows[end - 1][1].positions
        found = [
            (costs[start] + BATCH_COST + (end - start) * positions, start)
            for start in range(max(0, end - most), end)
            if mixed or rows[start][1].positions == positions
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
