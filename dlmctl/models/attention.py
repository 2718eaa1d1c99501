"""The attention of all networks: fused kernels where they are fast, explicit matrix products where they are not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dlmctl.models.numerics import at_least_float32

# The backward pass of fused kernels processes blocks designed for long sequences. For sentences, two plain matrix
# products are faster on a CPU, in bfloat16 three times. On a GPU the kernel with the smallest blocks is faster, and it
# needs no plan for every new shape of a batch.
SHORT = 128
# Numbers in a vector register of a CPU.
VECTOR = 16
GPU_BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _softmax(scores: Tensor) -> Tensor:
    """softmax of ``scores [..., S]``, padded to at least ``VECTOR``.

    For shorter rows torch takes five times as long, and sums in another order than for the row of a longer text.
    """
    padding = VECTOR - scores.shape[-1]
    if padding <= 0:
        return scores.softmax(-1)
    return F.pad(scores, (0, padding), value=-torch.inf).softmax(-1)[..., :-padding]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1).

    Args:
        q: ``[B, heads, L, d]``.
        k, v: ``[B, heads, S, d]``.
        mask: broadcast to ``[B, heads, L, S]``; bool, true for positions to attend to, or numbers to add to the scores.
        dropout: dropout probability of the attention weights.
    """
    if max(q.shape[-2], k.shape[-2]) > SHORT or (q.device.type == "cpu" and not torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    if q.device.type != "cpu":
        with sdpa_kernel(GPU_BACKENDS):
            return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    weights = _softmax(at_least_float32(scores)).to(scores.dtype)
    if dropout > 0:  # inside the call, torch.compile would not treat it as a constant
        weights = F.dropout(weights, dropout)
    return weights @ v
