"""The device on which texts are drawn, and the precision in which the networks compute there."""

from __future__ import annotations

from typing import Literal

import torch

from dlmctl import processes
from dlmctl.errors import UserError
from dlmctl.recipe.settings import DEVICES, Precision


def networks_in(precision: Precision, device: torch.device) -> torch.autocast:
    """A context in which the denoiser's matrix products have this precision; sums, softmax and latents stay float32.

    Entered once around a whole batch: the weights are cast on first use and cached until it exits.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=computed_in(precision, device) == "bf16")


def computed_in(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision used on the device, with ``auto`` resolved."""
    if precision != "auto":
        return precision
    return "bf16" if fast_bfloat16(device) else "fp32"


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones.

    True for CPUs with AMX or AVX-512 BF16, and for GPUs from Ampere on.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(features.get(feature, False) for feature in ("amx_bf16", "avx512_bf16"))


def choose_device(name: str, *, deterministic: bool = False, needs_float64: bool = False) -> torch.device:
    """The device with this name; ``auto`` is the GPU if there is one, and each of several processes gets its own.

    Deterministic texts need the CPU: GPU kernels may sum in a different order each time.

    Raises:
        UserError: there is no such device here, it cannot draw deterministic texts, or it has no float64 but needs it.
    """
    name = str(name)  # callers in Python may pass anything
    if not DEVICES.fullmatch(name):
        raise UserError(f"device {name!r} cannot be used.", remedy="Use auto, cpu, cuda, cuda:1 or mps.")
    if deterministic and name not in ("auto", "cpu"):
        raise UserError(f"sampler.deterministic is for the CPU, not {name!r}.", remedy="Use auto or cpu.")
    if needs_float64 and name.startswith("mps"):
        raise UserError(f"device {name!r} has no float64, in which this is computed.", remedy="Use auto or cpu.")
    if deterministic:
        name = "cpu"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and processes.count() > 1:
        name = f"cuda:{processes.local_rank()}"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"device {name!r} cannot be used: {reason}.", remedy="Use auto or cpu.") from None
    return device
