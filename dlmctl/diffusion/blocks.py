"""Texts written block by block from left to right, each block by a walk of its own: LLaDA's semi-autoregressive way."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from dlmctl.diffusion.walks import Stride, strides


class Stretch(NamedTuple):
    """A reverse step on the places from ``first`` up to, not with, ``behind``."""

    first: int
    behind: int
    stride: Stride


def in_blocks(steps: int, places: int, block: int | None = None) -> list[Stretch]:
    """The steps of a walk over ``places`` behind START, block after block (Nie et al. 2025, section 2.4).

    Every block has steps by its share of the places, and in it a time of its own that runs from 1 to 0. So as many
    steps as places write one token each.

    Args:
        block: places of a block, the last one perhaps shorter; None for one block of all.

    Raises:
        ValueError: there are fewer steps than blocks.
    """
    size = min(block or places, places)
    count = -(-places // size)
    if steps < count:
        raise ValueError(f"{count} blocks need at least as many steps, and there are {steps}")
    ends = [min(number * size, places) for number in range(count + 1)]
    return [
        # Of m open places ceil(m / left) are written, which never grows from one step to the next.
        Stretch(1 + start, 1 + end, stride._replace(most=-(-(end - start) // share)))
        for start, end in pairwise(ends)
        for share in (end * steps // places - start * steps // places,)
        for stride in strides(share)
    ]
