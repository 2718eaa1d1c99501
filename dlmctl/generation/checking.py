"""Checks of finished texts: all at once, or those of one batch while a GPU draws the next one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

from dlmctl.control.base import Control
from dlmctl.control.check import Check
from dlmctl.control.combined import check_all
from dlmctl.sampling.draw import Drawn

Checks = Mapping[str, Check]
Batches = Iterator[Sequence[Drawn]]


def checked(control: Control[Any] | None, batches: Batches, *, aside: bool) -> list[tuple[Drawn, Checks]]:
    """Check the texts of all batches; the results are in the order of the draws, whatever the order of the batches.

    Args:
        aside: check in a separate thread while the next batch is drawn. That pays off when a GPU draws: the CPU is then
            free, and half of the judges' work runs outside of Python. When the CPU draws, it is busy, and judges are
            fastest with all texts at once.

    Raises:
        UserError: a check raises an error; with ``aside`` before the next batch is started.
    """
    if not aside:
        drawn = sorted(chain.from_iterable(batches), key=lambda draw: draw.draw)
        return list(zip(drawn, _checks(control, drawn), strict=True))
    results: list[tuple[Drawn, Checks]] = []
    running: list[tuple[Sequence[Drawn], Future[list[dict[str, Check]]]]] = []
    pool = ThreadPoolExecutor(1, "checks")
    try:
        for batch in batches:
            running.append((batch, pool.submit(_checks, control, batch)))
            while running and running[0][1].done():
                _collect(running, results)
        while running:
            _collect(running, results)
    finally:  # an error or Ctrl-C waits for the batch that is being checked, and for no other
        pool.shutdown(cancel_futures=True)
    return sorted(results, key=lambda pair: pair[0].draw)


def checks_aside(control: Control[Any] | None, device: str) -> bool:
    """Whether the checks of a control run in parallel with drawing on a device."""
    return control is not None and device != "cpu" and control.checks_aside()


def _collect(
    running: list[tuple[Sequence[Drawn], Future[list[dict[str, Check]]]]], results: list[tuple[Drawn, Checks]]
) -> None:
    batch, future = running.pop(0)
    results += zip(batch, future.result(), strict=True)


def _checks(control: Control[Any] | None, drawn: Sequence[Drawn]) -> list[dict[str, Check]]:
    samples, texts = [draw.draw.sample for draw in drawn], [draw.words for draw in drawn]
    return check_all(control, samples, texts, [draw.text for draw in drawn])
