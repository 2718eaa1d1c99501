"""Sums of probabilities in log space, without underflow."""

from __future__ import annotations

import torch
from torch import Tensor


def log_sum(values: Tensor, dim: int) -> Tensor:
    """``logsumexp`` over a dimension; where all values are -inf, the result is -inf with gradient 0 (torch: NaN)."""
    if not values.requires_grad:
        return values.logsumexp(dim)  # the same numbers in one call
    top = values.detach().amax(dim, keepdim=True)
    total = (values - top.clamp(min=torch.finfo(top.dtype).min)).exp().sum(dim)
    # The largest term is exp(0) = 1, so a total below 1 is 0: all values are -inf.
    return total.clamp(min=1.0).log() + top.squeeze(dim)


def scatter_log_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """``log_sum`` of the ``values [..., M]`` that share an index: ``[..., count]``, -inf for indices without values."""
    top = scatter_top(values.detach(), index, count, torch.finfo(values.dtype).min)
    total = torch.zeros_like(top).scatter_add(-1, index, (values - top.gather(-1, index)).exp())
    if not values.requires_grad:
        return total.log() + top
    # The largest term is exp(0) = 1, so a total below 1 is 0: there are no values.
    return torch.where(total < 1.0, -torch.inf, total.clamp(min=1.0).log() + top)


def scatter_top(values: Tensor, index: Tensor, count: int, least: float = -torch.inf) -> Tensor:
    """Maximum of the ``values [..., M]`` that share an index, and of ``least``: ``[..., count]``."""
    lowest = values.new_full((*values.shape[:-1], count), least)
    return lowest.scatter_reduce(-1, index, values, "amax")


def gathered(values: Tensor, index: Tensor) -> Tensor:
    """``values [B, *, S]`` at ``index [B, M]``: ``[B, *, M]``."""
    return values.gather(-1, index if values.dim() == 2 else index[:, None].expand(-1, values.shape[1], -1))


def at_places(values: Tensor, places: Tensor) -> Tensor:
    """``values [B, N, S]`` at ``places [B, M]`` of a text: ``[B, M, S]``."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def weights_of(terms: Tensor) -> Tensor:
    """Unnormalised probabilities ``[..., M]`` of log-probabilities, at most 1; 0 where all of them are -inf."""
    return (terms - terms.amax(-1, keepdim=True).clamp(min=torch.finfo(terms.dtype).min)).exp()
