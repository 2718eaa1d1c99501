"""Where randomness comes from: each draw of each sample has streams of its own, in whatever batch it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# What a stream is for; streams of one draw are independent of each other.
NOISE, LAYOUT, CONTROL = range(3)


class Draw(NamedTuple):
    """One attempt at one sample of a run; all its randomness follows from these numbers."""

    seed: int
    sample: int
    attempt: int = 0

    def generator(self, use: int) -> torch.Generator:
        """The stream of this draw for a use: ``NOISE``, ``LAYOUT``, or ``CONTROL`` for what a control draws itself."""
        state = np.random.SeedSequence((self.seed, self.sample, self.attempt, use)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) % 2**63)


class SampleNoise:
    """Standard normal noise for a batch, from one stream per draw.

    The generators live on the CPU, so a seed means the same noise on every device.

    Args:
        draws: one for each row of the batch.
        positions: how many of each row have noise, 0 behind them; all if not given.
        top_p: redraw entries whose absolute value exceeds this (Diffusion-LM's noise truncation); None keeps all.

    Raises:
        ValueError: ``top_p`` is not positive.
    """

    def __init__(
        self, draws: Sequence[Draw], top_p: float | None = None, positions: Sequence[int] | None = None
    ) -> None:
        if top_p is not None and top_p <= 0:
            raise ValueError(f"top_p must be positive, got {top_p}")
        self.top_p, self.positions = top_p, positions
        self.generators = [draw.generator(NOISE) for draw in draws]

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of the shape ``[B, L, D]``, type and device of ``like``; row i comes from stream i."""
        _, length, width = like.shape
        noise = torch.zeros(len(self.generators), length, width)
        for row, source in enumerate(self.generators):
            own = length if self.positions is None else self.positions[row]
            noise[row, :own] = self._draw(source, torch.Size((own, width)))
        return noise.to(like)

    def _draw(self, source: torch.Generator, shape: torch.Size) -> Tensor:
        noise = torch.randn(shape, generator=source)
        while self.top_p is not None and bool((outside := noise.abs() > self.top_p).any()):
            noise[outside] = torch.randn(int(outside.sum()), generator=source)
        return noise
