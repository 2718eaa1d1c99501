"""Texts one after another, as their batches finish: the first are there while the last are still to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.generation.arguments import read_extent, whole
from dlmctl.generation.company import Company, distinct_of
from dlmctl.generation.options import Options
from dlmctl.generation.results import Generation, Sample


def stream_of(
    pretrained: Pretrained, draw: Callable[..., Generation], samples: int | None, given: Options
) -> Iterator[Sample]:
    """The samples of a run by their numbers, a batch at a time; those of ``generate`` but for rounding.

    Args:
        draw: ``generate`` with all that stays the same.
        samples: how many, None for no end.
        given: the arguments of the run; ``batch_size``, ``quota`` and ``unique`` among them are looked at.

    Raises:
        UserError: as ``generate``.
    """
    size = whole("batch_size", given.get("batch_size", 64))
    total = None if samples is None else whole("samples", samples)
    quota, unique = read_extent(given.get("quota", False), given.get("unique", False))
    distinct = distinct_of(pretrained, quota, unique=unique)
    for start in count(0, size):
        if total is not None and start >= total:
            return
        stop = start + size if total is None else min(start + size, total)
        yield from draw(samples=range(start, stop), company=Company(distinct=distinct), **given)
