"""The device that a run trains on, chosen by accelerate."""

from __future__ import annotations

from typing import Literal

import torch
from accelerate import Accelerator


def accelerator_for(precision: Literal["fp32", "bf16", "fp16"]) -> Accelerator:
    """Accelerate on the GPU, or else on the CPU: also beside a GPU of Apple, which has no float64, as times are."""
    device = torch.accelerator.current_accelerator(check_available=True)
    # Without cpu=True, accelerate treats several processes on a CPU as that many runs of one process.
    on_cpu = device is None or device.type == "mps"
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=on_cpu)
