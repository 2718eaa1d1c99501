"""Sums of probabilities given as logarithms, in which nothing underflows."""

from __future__ import annotations

import torch
from torch import Tensor


def log_sum(values: Tensor, dim: int) -> Tensor:
    """log of the sum of exponentials over a dimension; -inf, with gradient 0 (torch: NaN), of nothing but -inf."""
    if not values.requires_grad:
        return values.logsumexp(dim)  # the same numbers by one call
    top = values.detach().amax(dim, keepdim=True)
    total = (values - top.clamp(min=torch.finfo(top.dtype).min)).exp().sum(dim)
    # The largest is exp(0), so that less than 1 is 0: nothing there.
    return total.clamp(min=1.0).log() + top.squeeze(dim)


def scatter_log_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """``[..., M]`` to ``[..., count]``: ``log_sum`` of the values that share an index; -inf where there are none."""
    top = scatter_top(values.detach(), index, count, torch.finfo(values.dtype).min)
    total = torch.zeros_like(top).scatter_add(-1, index, (values - top.gather(-1, index)).exp())
    if not values.requires_grad:
        return total.log() + top
    # The largest is exp(0), so that less than 1 is 0: nothing there.
    return torch.where(total < 1.0, -torch.inf, total.clamp(min=1.0).log() + top)


def scatter_top(values: Tensor, index: Tensor, count: int, least: float = -torch.inf) -> Tensor:
    """``[..., M]`` to ``[..., count]``: the largest of the values that share an index, at least ``least``."""
    lowest = values.new_full((*values.shape[:-1], count), least)
    return lowest.scatter_reduce(-1, index, values, "amax")
