"""Faster start-up."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


@contextmanager
def importing(*, quiet: bool = True) -> Iterator[None]:
    """Turn off garbage collection while modules are imported, and exempt their objects from later collections. Unless
    ``quiet``, a terminal shows that the command has started: torch takes more than a second.

    None of the million objects that torch creates is garbage, and scanning them took a tenth of a short run.
    """
    from dlmctl.text.terminal import spinning

    gc.disable()
    try:
        with nullcontext() if quiet else spinning("starting"):
            yield
    finally:
        gc.freeze()
        gc.enable()
