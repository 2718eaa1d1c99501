"""Settings of the fuzz tests: the same few examples in the suite, or as many random ones as ``DLMCTL_FUZZ`` says."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = int(os.environ.get("DLMCTL_FUZZ", "0"))


def fuzzed(examples: int) -> settings:
    """Run a test on so many examples, in its long form on ``LONG``."""
    return settings(
        max_examples=LONG or examples,
        deadline=None,
        database=None,
        derandomize=not LONG,
        suppress_health_check=list(HealthCheck),
    )
