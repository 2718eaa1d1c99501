"""Warnings that are logged once: per process, and in a notebook per run of a cell, whose earlier output is gone."""

from __future__ import annotations

import logging
from functools import lru_cache

from dlmctl.errors import readable
from dlmctl.text.notebook import running_shell

log = logging.getLogger(__name__)


def warn_once(what: str) -> None:
    """Log a warning once, because controls are prepared anew for every batch."""
    _warn(what, _cell_run())


@lru_cache(maxsize=1000)
def _warn(what: str, cell_run: int | None) -> None:
    log.warning("dlmctl: %s", readable(what))


def _cell_run() -> int | None:
    """The number of the current run of a cell; None outside of IPython."""
    return getattr(running_shell(), "execution_count", None)
