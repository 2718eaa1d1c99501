"""The forward process of masked models, in training and evaluation: which words are masked, with what weight."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# Below this time almost nothing is masked, and the weight 1 / t diverges (LLaDA, algorithm 1).
LEAST_TIME = 1e-3


def shares(rows: int, offset: Tensor) -> Tensor:
    """Stratified uniform numbers in [0, 1), one for each row: ``[rows]``.

    The low-variance times of Kingma et al. 2021 (appendix I.1): a regular grid with one random ``offset``, a uniform
    scalar.
    """
    return (torch.arange(rows, device=offset.device, dtype=torch.float64) / rows + offset) % 1.0


def mask_by_count(places: Tensor, share: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Mask k of the n ``places [B, L]`` of each row, k = 1 + floor(n share), with weights n / k ``[B]``.

    The expected weighted cross-entropy of the masked words is the bound of any-order autoregressive models (Uria et al.
    2014; Hoogeboom et al. 2022), which is also that of masked diffusion with time integrated out (Ou et al. 2024).

    Args:
        share: ``[B]``, uniform in [0, 1).
        order: ``[B, L]``, uniform: the places with the k lowest numbers are masked.
    """
    counts = places.sum(1)
    chosen = (share * counts).long() + 1
    ranks = order.masked_fill(~places, 2.0).argsort(1).argsort(1)
    return places & (ranks < chosen[:, None]), counts / chosen


def mask_by_time(places: Tensor, share: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Mask each of ``places [B, L]`` with probability t, with weights 1 / t ``[B]`` (MDLM, eq. 11; LLaDA, eq. 3).

    Arguments as for ``mask_by_count``; t is ``share``, rescaled to [``LEAST_TIME``, 1).
    """
    t = LEAST_TIME + (1 - LEAST_TIME) * share
    return places & (order < t[:, None]), 1 / t


def max_masked_count(words: np.ndarray, shares: np.ndarray, objective: str) -> int:
    """An upper bound on the number of masked positions in a batch with ``words [B]`` maskable positions per row.

    For the objective ``count`` it is exact; for ``time`` it is exceeded with a probability of at most 1e-15
    (Bernstein's inequality).

    Args:
        shares: ``[B]``, as for ``mask_by_count`` and ``mask_by_time``.
    """
    if objective == "count":
        return int(np.minimum((shares * words).astype(np.int64) + 1, words).sum())
    t = LEAST_TIME + (1 - LEAST_TIME) * shares
    mean, variance = float((words * t).sum()), float((words * t * (1 - t)).sum())
    nats = 15 * math.log(10)
    deviation = nats / 3 + math.sqrt((nats / 3) ** 2 + 2 * nats * variance)
    return min(int(words.sum()), math.ceil(mean + deviation))


Masking = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
MASKINGS: dict[str, Masking] = {"count": mask_by_count, "time": mask_by_time}
