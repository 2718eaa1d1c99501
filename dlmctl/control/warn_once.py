"""What is worth a line on stderr though the run goes on."""

from __future__ import annotations

import logging
from functools import lru_cache

from dlmctl.errors import readable

log = logging.getLogger(__name__)


@lru_cache(maxsize=1000)
def warn_once(what: str) -> None:
    """Log a warning, once a process: controls are prepared for every batch anew."""
    log.warning("dlmctl: %s", readable(what))
