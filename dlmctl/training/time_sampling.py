"""Adaptive sampling of training times: more often where the loss changes fastest.

Dieleman et al. 2022 (CDCD, section 3.3) warp time so that the loss grows evenly along it. Here the loss is averaged in
bins of t, and times are drawn with a density proportional to its increments, mixed with a uniform floor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 50
FLOOR = 0.4
MEMORY = 0.97


class TimeSampler:
    """Draws training times in (0, 1] and adapts their density to the loss, all on the device they are drawn for.

    Args:
        adaptive: False draws uniformly.
        first: the smallest time drawn.
    """

    def __init__(self, adaptive: bool, first: float) -> None:
        self.adaptive, self.first = adaptive, first
        self.loss = torch.zeros(BINS)
        self.seen = torch.zeros(BINS)

    def density(self) -> Tensor:
        """Probability of each of the ``BINS`` equal bins of t."""
        uniform = torch.full_like(self.loss, 1.0 / BINS)
        if not self.adaptive:
            return uniform
        monotonic = torch.cummax(self.loss, 0).values
        padded = torch.cat([monotonic[:1], monotonic, monotonic[-1:]])
        slope = (padded[2:] - padded[:-2]).clamp(min=0)
        total = slope.sum()
        is_known = (self.seen >= 20).all() & (total > 0)  # a tensor, as a Python bool would wait for the device
        return torch.where(is_known, FLOOR * uniform + (1 - FLOOR) * slope / total, uniform)

    def draw(self, count: int, device: torch.device | None = None) -> Tensor:
        """``[count]`` times on ``device``, stratified over the density, in random order, float64.

        Uses the device's global generator.
        """
        device = device or self.loss.device
        self.loss, self.seen = self.loss.to(device), self.seen.to(device)
        levels = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
        edges = F.pad(self.density().cumsum(0), (1, 0))
        edges = edges / edges[-1]
        bins = (torch.searchsorted(edges, levels, right=True) - 1).clamp(0, BINS - 1)
        within = (levels - edges[bins]) / (edges[bins + 1] - edges[bins])
        t = (bins + within) / BINS
        return (self.first + (1 - self.first) * t).double().clamp(self.first, 1.0)

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Update the average losses with ``loss [B]`` at times ``t [B]``."""
        bins = (t.float() * BINS).long().clamp(0, BINS - 1)
        counts = torch.zeros_like(self.loss).index_add_(0, bins, torch.ones_like(loss, dtype=torch.float32))
        sums = torch.zeros_like(self.loss).index_add_(0, bins, loss.float())
        keep = torch.where(self.seen < 20, 0.8, MEMORY) ** counts
        mean = sums / counts.clamp(min=1)
        self.loss = torch.where(
            counts > 0, torch.where(self.seen > 0, keep * self.loss + (1 - keep) * mean, mean), self.loss
        )
        self.seen += counts

    def state_dict(self) -> dict[str, Tensor]:
        return {"loss": self.loss, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.loss, self.seen = state["loss"], state["seen"]
