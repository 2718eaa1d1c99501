"""Numerical precision of network outputs."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in at least float32; float64 stays float64."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
