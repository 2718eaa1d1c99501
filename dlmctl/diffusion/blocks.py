"""Semi-autoregressive sampling: blocks from left to right, a full walk for each (Nie et al. 2025)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from dlmctl.diffusion.walks import Stride, strides


class BlockStep(NamedTuple):
    """A reverse step on the places from ``first`` up to but excluding ``end``."""

    first: int
    end: int
    stride: Stride


def block_schedule(steps: int, places: int, block: int | None = None, first: int | None = None) -> list[BlockStep]:
    """The steps of a walk over the ``places`` after START, block by block (Nie et al. 2025, section 2.4).

    Each block gets steps in proportion to its places, at least one, and its time runs from 1 to 0. With as many steps
    as places, each step writes one token.

    Args:
        block: places per block, the last block may be shorter; None for a single block.
        first: places of the first block, if they are others.

    Raises:
        ValueError: there are fewer steps than blocks.
    """
    size = block or places
    ends = [0, *range(size if first is None else first, places, size), places]
    count = len(ends) - 1
    if steps < count:
        raise ValueError(f"{count} blocks need at least as many steps, and there are {steps}")
    until = [0]
    for end in ends[1:]:
        until.append(max(until[-1] + 1, end * steps // places))
    return [
        # A step writes ceil(m / left) of m open places, a number that never grows from one step to the next.
        BlockStep(1 + start, 1 + end, stride._replace(most=-(-(end - start) // (after - before)), places=end - start))
        for (start, end), (before, after) in zip(pairwise(ends), pairwise(until), strict=True)
        for stride in strides(after - before)
    ]
