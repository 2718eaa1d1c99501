"""Numerical precision of network outputs, and devices without float64."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in at least float32; float64 stays float64."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def in_float64(x: Tensor | float) -> Tensor:
    """``x`` in float64: on its device, or on the CPU if it is a number or its device is of Apple (MPS), which has no
    float64."""
    if not isinstance(x, Tensor):
        return torch.tensor(x, dtype=torch.float64)
    return (x.cpu() if x.device.type == "mps" else x).double()


def times_on(device: torch.device, t: Tensor) -> Tensor:
    """Times ``t``, float64 on the CPU, on a device: float64, or float32 if it has no float64."""
    return t.to(device, torch.float32 if device.type == "mps" else torch.float64, non_blocking=True)
