"""Model FLOPs utilisation (MFU): the share of a device's peak throughput that a training run reaches."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import nn

# The backward pass has two matrix products for each one of the forward pass, each with two operations per weight.
FLOPS_PER_WEIGHT = 6
ROUNDS = 5

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def flops_per_position(model: nn.Module) -> int:
    """Floating-point operations of one training pass over one position (Kaplan et al. 2020, section 2.1).

    Only products with weights are counted, without those of attention and of the first estimate in self-conditioning,
    so that utilisation is understated rather than overstated. ``tied_weights`` of a model is the number of embedding
    weights that its output layer multiplies each position with.
    """
    layers = (module for module in model.modules() if not isinstance(module, nn.Embedding))
    weights = (weight for layer in layers for weight in layer.parameters(recurse=False) if weight.ndim > 1)
    tied = getattr(model, "tied_weights", 0)
    return FLOPS_PER_WEIGHT * (sum(weight.numel() for weight in weights) + int(tied))


@cache  # each product on a CPU takes as long as several steps of a small model
def peak_flops(device: torch.device, precision: str) -> float:
    """Operations per second of one large matrix product on this device, the best of a few: an upper bound for a model.
    It is measured once in a process.

    Args:
        precision: a key of ``DTYPES``.

    Vendors' figures are higher (989e12 for bf16 on an H100) and do not hold for a shared or throttled machine.
    """
    size = 1024 if device.type == "cpu" else 8192
    matrix = torch.ones(size, size, dtype=DTYPES[precision], device=device)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for a GPU to finish
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
