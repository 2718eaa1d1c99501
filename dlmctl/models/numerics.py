"""Precision of what leaves a network."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """``x`` in at least float32: what leaves a network goes on so, and float64 stays float64."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
