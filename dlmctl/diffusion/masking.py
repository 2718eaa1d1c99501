"""Which words of a text are masked, and with what weight: what masked models are trained and measured on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# Below this time next to nothing is masked, and the weight 1 / t grows without bound (LLaDA, algorithm 1).
LEAST_TIME = 1e-3


def shares(rows: int, offset: Tensor) -> Tensor:
    """``[rows]`` numbers in [0, 1), each uniform, spread evenly over the rows.

    The low-variance times of Kingma et al. 2021 (appendix I.1): a grid with one random ``offset``, a uniform scalar.
    """
    return (torch.arange(rows, device=offset.device, dtype=torch.float64) / rows + offset) % 1.0


def mask_by_count(places: Tensor, share: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """k of the n ``places [B, L]`` of each row, k = 1 + floor(n share), and the weights n / k ``[B]``.

    The expected weighted cross-entropy on them is the bound of any-order autoregressive models (Uria et al. 2014;
    Hoogeboom et al. 2022), which is also that of masked diffusion with its time integrated out (Ou et al. 2024).

    Args:
        share: ``[B]``, uniform in [0, 1); order: ``[B, L]``, uniform: the places of the k lowest are masked.
    """
    counts = places.sum(1)
    chosen = (share * counts).long() + 1
    ranks = order.masked_fill(~places, 2.0).argsort(1).argsort(1)
    return places & (ranks < chosen[:, None]), counts / chosen


def mask_by_time(places: Tensor, share: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Each of ``places [B, L]`` with probability t, and the weights 1 / t ``[B]`` (MDLM, eq. 11; LLaDA, eq. 3).

    Arguments as of ``mask_by_count``; t = share, lifted to ``LEAST_TIME`` at least.
    """
    t = LEAST_TIME + (1 - LEAST_TIME) * share
    return places & (order < t[:, None]), 1 / t


def most_masked(words: np.ndarray, shares: np.ndarray, objective: str) -> int:
    """So many of ``words [B]`` places a row are masked in all, at most, at the ``shares [B]`` of each.

    Of ``mask_by_count`` the number; of ``mask_by_time`` one that it exceeds with a probability of 1e-15 (Bernstein's
    inequality).
    """
    if objective == "count":
        return int(np.minimum((shares * words).astype(np.int64) + 1, words).sum())
    t = LEAST_TIME + (1 - LEAST_TIME) * shares
    mean, variance = float((words * t).sum()), float((words * t * (1 - t)).sum())
    nats = 15 * math.log(10)
    beyond = nats / 3 + math.sqrt((nats / 3) ** 2 + 2 * nats * variance)
    return min(int(words.sum()), math.ceil(mean + beyond))


Masking = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
MASKINGS: dict[str, Masking] = {"count": mask_by_count, "time": mask_by_time}
