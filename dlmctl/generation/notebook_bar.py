"""Progress in a notebook: a bar below the cell, which disappears when the texts are done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlmctl.sampling.draw import Progress

# Seconds between updates: each is a message to the browser.
REFRESH_SECONDS = 0.2


@dataclass(frozen=True)
class Bar:
    """The steps done, as a notebook shows them; nothing at the end."""

    done: int
    total: int

    def _repr_html_(self) -> str:
        if self.done >= self.total:
            return ""
        bar = f'<progress value="{self.done}" max="{self.total}" style="width: 16em"></progress>'
        return f"{bar} {self.done} of {self.total} steps"

    def __repr__(self) -> str:
        return "" if self.done >= self.total else f"{self.done} of {self.total} steps"


@contextmanager
def progress_or_bar(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """The caller's progress callback; by default a bar in a notebook, and None elsewhere."""
    display = _display() if progress is None or progress is True else None
    if display is None:
        yield progress if callable(progress) else None
        return
    handle = display(Bar(0, 1), display_id=True)
    last_update = 0.0

    def advance(done: int, total: int) -> None:
        nonlocal last_update
        if time.monotonic() - last_update >= REFRESH_SECONDS:
            last_update = time.monotonic()
            handle.update(Bar(done, total))

    try:
        yield advance
    finally:
        handle.update(Bar(1, 1))


def _display() -> Any:
    """``display`` of the notebook that this code runs in, None elsewhere. In a notebook IPython is loaded already."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return getattr(sys.modules.get("IPython.display"), "display", None)
