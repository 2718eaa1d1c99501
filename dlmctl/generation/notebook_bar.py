"""Progress in a notebook: one bar below the cell, which goes when the texts are there."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlmctl.sampling.draw import Progress

# Seconds from one picture to the next: each is a message to the browser.
EVERY = 0.2


@dataclass(frozen=True)
class Bar:
    """How far it is, for a notebook to show; nothing at the end."""

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
def shown(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """The progress that a caller gives; by default a bar where the code runs in a notebook, and nothing elsewhere."""
    display = _display() if progress is None or progress is True else None
    if display is None:
        yield progress if callable(progress) else None
        return
    handle = display(Bar(0, 1), display_id=True)
    last = 0.0

    def advance(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            handle.update(Bar(done, total))

    try:
        yield advance
    finally:
        handle.update(Bar(1, 1))


def _display() -> Any:
    """What shows objects in the notebook that this code runs in; None elsewhere. IPython is loaded if there is one."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return getattr(sys.modules.get("IPython.display"), "display", None)
