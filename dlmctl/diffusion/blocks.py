"""LLaDA's semi-autoregressive sampling: blocks from left to right, a full walk for each."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from dlmctl.diffusion.walks import Stride, strides


class BlockStep(NamedTuple):
    """A reverse step on the places from ``first`` up to but excluding ``end``."""

    first: int
    end: int
    stride: Stride


def block_schedule(steps: int, places: int, block: int | None = None) -> list[BlockStep]:
    """The steps of a walk over the ``places`` after START, block by block (Nie et al. 2025, section 2.4).

    Each block gets steps in proportion to its places, and its time runs from 1 to 0. With as many steps as places,
    each step writes one token.

    Args:
        block: places per block, the last block may be shorter; None for a single block.

    Raises:
        ValueError: there are fewer steps than blocks.
    """
    size = min(block or places, places)
    count = -(-places // size)
    if steps < count:
        raise ValueError(f"{count} blocks need at least as many steps, and there are {steps}")
    ends = [min(number * size, places) for number in range(count + 1)]
    return [
        # A step writes ceil(m / left) of m open places, a number that never grows from one step to the next.
        BlockStep(1 + start, 1 + end, stride._replace(most=-(-(end - start) // block_steps)))
        for start, end in pairwise(ends)
        for block_steps in (end * steps // places - start * steps // places,)
        for stride in strides(block_steps)
    ]
