"""Progress in a notebook: a bar below the cell, which disappears when the texts are done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlmctl.generation.arguments import check_callbacks
from dlmctl.sampling.draw import Progress
from dlmctl.text.notebook import running_shell

# Seconds between updates: each is a message to the browser.
REFRESH_SECONDS = 0.2


@dataclass(frozen=True)
class Bar:
    """How much is done, as a notebook shows it; without a total, what precedes the first step."""

    done: int = 0
    total: int | None = None
    unit: str = "steps"

    def _repr_html_(self) -> str:
        extent = "" if self.total is None else f' value="{self.done}" max="{self.total}"'
        return f'<progress{extent} style="width: 16em"></progress> {self!r}'

    def __repr__(self) -> str:
        return "preparing" if self.total is None else f"{self.done} of {self.total} {self.unit}"


class Gone:
    """What remains of a bar at the end: nothing, since a notebook keeps what was displayed."""

    def _repr_html_(self) -> str:
        return ""

    def __repr__(self) -> str:
        return ""


@contextmanager
def progress_or_bar(progress: Progress | bool | None, unit: str = "steps") -> Iterator[Progress | None]:
    """The caller's progress callback; by default a bar in a notebook that counts ``unit``, and None elsewhere."""
    check_callbacks(progress=progress)
    display = _display() if progress is None or progress is True else None
    if display is None:
        yield progress if callable(progress) else None
        return
    handle = display(Bar(), display_id=True)
    last_update = 0.0

    def advance(done: int, total: int) -> None:
        nonlocal last_update
        if time.monotonic() - last_update >= REFRESH_SECONDS:
            last_update = time.monotonic()
            handle.update(Bar(done, total, unit))

    try:
        yield advance
    finally:
        handle.update(Gone())


def _display() -> Any:
    """``display`` of the notebook that this code runs in, None elsewhere."""
    if not hasattr(running_shell(), "kernel"):
        return None
    return getattr(sys.modules.get("IPython.display"), "display", None)
