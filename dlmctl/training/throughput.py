"""How much of what a device can do a training run gets out of it: model-FLOPs utilisation."""

from __future__ import annotations

import time

import torch
from torch import nn

# A backward pass is two matrix products for each one of the forward pass, each of two operations a weight.
FLOPS_PER_WEIGHT = 6
ROUNDS = 5

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def flops_per_position(model: nn.Module) -> int:
    """Floating-point operations of one training pass over one position (Kaplan et al. 2020, section 2.1).

    Only products with weights are counted: neither attention's products nor the first estimate that
    self-conditioning makes, so that utilisation is rather under- than overstated. A model says itself with how many
    weights of its embeddings a position is multiplied in the output layer (``tied_weights``).
    """
    layers = (module for module in model.modules() if not isinstance(module, nn.Embedding))
    weights = (weight for layer in layers for weight in layer.parameters(recurse=False) if weight.ndim > 1)
    tied = getattr(model, "tied_weights", 0)
    return FLOPS_PER_WEIGHT * (sum(weight.numel() for weight in weights) + int(tied))


def peak_flops(device: torch.device, precision: str) -> float:
    """Operations a second of one large matrix product here, the best of a few: what a model could reach at most.

    Args:
        precision: a key of ``DTYPES``.

    The makers' own figures are higher (989e12 for bf16 on an H100) and are of no machine that is shared or throttled.
    """
    size = 2048 if device.type == "cpu" else 8192
    left = torch.ones(size, size, dtype=DTYPES[precision], device=device)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        product = left @ left
        product[0, 0].item()  # a GPU is not done before it is asked
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
