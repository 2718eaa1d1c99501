"""Attention as the networks here compute it: fused where that is fast, spelled out where it is not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dlmctl.models.numerics import widened

# The backward pass of fused kernels works through blocks made for long sequences. For the lengths of sentences two
# plain matrix products are quicker on a CPU, in bfloat16 three times. On a GPU the kernel of the smallest blocks is,
# and it makes no plan for every new shape of a batch.
SHORT = 128
# Numbers that a CPU works on at once.
VECTOR = 16
ON_GPU = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _softmax(scores: Tensor) -> Tensor:
    """softmax of ``scores [..., S]``. A row shorter than ``VECTOR`` is filled up to it: over less torch takes five
    times as long, and sums in another order than over the row of a longer text."""
    short = VECTOR - scores.shape[-1]
    if short <= 0:
        return scores.softmax(-1)
    return F.pad(scores, (0, short), value=-torch.inf).softmax(-1)[..., :-short]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1).

    Args:
        q: ``[B, heads, L, d]``; k, v: ``[B, heads, S, d]``.
        mask: broadcast to ``[B, heads, L, S]``; only true places are attended to. Numbers are added to the scores.
        dropout: probability with which a weight is dropped.
    """
    if max(q.shape[-2], k.shape[-2]) > SHORT or (q.device.type == "cpu" and not torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    if q.device.type != "cpu":
        with sdpa_kernel(ON_GPU):
            return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if mask is not None:
        hidden = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, hidden) if mask.dtype == torch.bool else scores + mask
    weights = _softmax(widened(scores)).to(scores.dtype)
    if dropout > 0:  # as an argument of the call this would be no constant for a compiler
        weights = F.dropout(weights, dropout)
    return weights @ v
