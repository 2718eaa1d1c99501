"""In which precision the networks compute while sampling."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dlmctl.settings import Precision


def networks_in(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which the denoiser's matrix products are of this precision; sums, softmax and latents stay float32.

    Entered once around a whole batch: the weights are cast on first use and kept until it is left.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=computed_in(precision, device) == "bf16")


def computed_in(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision that ``auto`` comes to on the device."""
    if precision != "auto":
        return precision
    return "bf16" if fast_bfloat16(device) else "fp32"


def widened(x: Tensor) -> Tensor:
    """``x`` in at least float32: what leaves a network goes on so, and float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones.

    So does a CPU with AMX or AVX-512 BF16, and a GPU of Ampere or later.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(able.get(feature, False) for feature in ("amx_bf16", "avx512_bf16"))
