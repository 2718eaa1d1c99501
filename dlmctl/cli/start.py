"""A quick start."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """No search for garbage while modules are imported, nor later among what came with them.

    Of the million objects that torch brings none is garbage, and looking through them took a tenth of a short run.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
