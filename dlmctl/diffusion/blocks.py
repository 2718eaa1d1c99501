"""Texts written block by block from left to right, each block by a walk of its own: LLaDA's semi-autoregressive way."""

from __future__ import annotations

from typing import NamedTuple

from dlmctl.diffusion.walks import Stride, strides


class Stretch(NamedTuple):
    """A reverse step on the places from ``first`` up to, not with, ``behind``."""

    first: int
    behind: int
    stride: Stride


def in_blocks(steps: int, places: int, block: int | None = None) -> list[Stretch]:
    """The steps of a walk over ``places`` behind START, block after block (Nie et al. 2025, section 2.4).

    Every block has its share of the steps, and in it a time of its own that runs from 1 to 0.

    Args:
        block: places of a block, the last one perhaps shorter; None for one block of all.

    Raises:
        ValueError: there are fewer steps than blocks.
    """
    size = min(block or places, places)
    count = -(-places // size)
    if steps < count:
        raise ValueError(f"{count} blocks need at least as many steps, and there are {steps}")
    shares = [(number + 1) * steps // count - number * steps // count for number in range(count)]
    return [
        # Of m open places ceil(m / left) are written, which never grows from one step to the next.
        Stretch(1 + number * size, min(1 + (number + 1) * size, 1 + places), stride._replace(most=-(-size // share)))
        for number, share in enumerate(shares)
        for stride in strides(share)
    ]
