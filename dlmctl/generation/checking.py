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
    """The texts of all batches with their checks, in the order of their draws, whatever order they come in.

    Args:
        aside: check in a thread of its own while the next batch is drawn. That pays where a GPU draws; the processor
            is then free, and half of what judges do runs outside of Python. Where the processor draws it is
            busy, and judges are quickest with all texts at once.

    Raises:
        UserError: a check fails; with ``aside`` before the next batch is begun.
    """
    if not aside:
        drawn = sorted(chain.from_iterable(batches), key=lambda one: one.draw)
        return list(zip(drawn, _checks(control, drawn), strict=True))
    found: list[tuple[Drawn, Checks]] = []
    running: list[tuple[Sequence[Drawn], Future[list[dict[str, Check]]]]] = []
    pool = ThreadPoolExecutor(1, "checks")
    try:
        for batch in batches:
            running.append((batch, pool.submit(_checks, control, batch)))
            while running and running[0][1].done():
                _take(running, found)
        while running:
            _take(running, found)
    finally:  # an error or Ctrl-C waits for the batch that is being checked, and for no other
        pool.shutdown(cancel_futures=True)
    return sorted(found, key=lambda pair: pair[0].draw)


def checks_aside(control: Control[Any] | None, device: str) -> bool:
    """Whether the checks of a control run beside the drawing on a device."""
    return control is not None and device != "cpu" and control.checks_aside()


def _take(
    running: list[tuple[Sequence[Drawn], Future[list[dict[str, Check]]]]], found: list[tuple[Drawn, Checks]]
) -> None:
    batch, future = running.pop(0)
    found += zip(batch, future.result(), strict=True)


def _checks(control: Control[Any] | None, drawn: Sequence[Drawn]) -> list[dict[str, Check]]:
    samples, texts = [one.draw.sample for one in drawn], [one.words for one in drawn]
    return check_all(control, samples, texts, [one.text for one in drawn])
