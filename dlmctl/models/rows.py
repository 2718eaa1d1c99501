"""Layers over one vector a text, such that a text gets the same to the last bit whatever shares its batch."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

# Matrix products of fewer rows go to kernels that add up in another order. Guidance makes such differences grow.
LEAST_ROWS = 16


def by_row(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``layer`` of ``x [B, D]``, computed on at least ``LEAST_ROWS`` rows."""
    missing = LEAST_ROWS - len(x)
    return layer(x) if missing <= 0 else layer(F.pad(x, (0, 0, 0, missing)))[: len(x)]
