"""Weights with fewer significant bits than half precision has, which compress to smaller files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Significant bits of half precision.
MAX_BITS = 11


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A weight in half precision with ``bits`` significant bits."""
    mantissa, exponent = torch.frexp(weight.cpu().float())
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent).half()


def round_matrices(state: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """All weights of a network in half precision, its matrices with ``bits`` significant bits."""
    return {name: rounded(weight, bits if weight.ndim > 1 else MAX_BITS) for name, weight in state.items()}
