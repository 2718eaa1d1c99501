"""Warnings that are logged once."""

from __future__ import annotations

import logging
from functools import lru_cache

from dlmctl.errors import readable

log = logging.getLogger(__name__)


@lru_cache(maxsize=1000)
def warn_once(what: str) -> None:
    """Log a warning once per process, because controls are prepared anew for every batch."""
    log.warning("dlmctl: %s", readable(what))
