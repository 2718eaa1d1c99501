"""Where randomness comes from: one seed a run, one stream a sample, so batch size never changes a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class SampleNoise:
    """Standard normal noise for a batch, drawn from one generator per sample.

    The generators live on the CPU, so a seed means the same noise on every device.

    Args:
        seed: of the run.
        samples: the number of each sample in the run.
        top_p: redraw entries whose absolute value exceeds this (Diffusion-LM's noise truncation); None keeps all.

    Raises:
        ValueError: ``top_p`` is not positive.
    """

    def __init__(self, seed: int, samples: Sequence[int], top_p: float | None = None) -> None:
        if top_p is not None and top_p <= 0:
            raise ValueError(f"top_p must be positive, got {top_p}")
        self.top_p = top_p
        self.generators = [generator(seed, sample) for sample in samples]

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of the shape ``[B, L, D]``, type and device of ``like``; row i comes from stream i."""
        rows = [self._draw(source, like.shape[1:]) for source in self.generators]
        return torch.stack(rows).to(like)

    def _draw(self, source: torch.Generator, shape: torch.Size) -> Tensor:
        noise = torch.randn(shape, generator=source)
        while self.top_p is not None and bool((outside := noise.abs() > self.top_p).any()):
            noise[outside] = torch.randn(int(outside.sum()), generator=source)
        return noise


def generator(seed: int, *numbers: int) -> torch.Generator:
    """A generator that follows from a run's seed and any further numbers, each combination its own stream."""
    state = np.random.SeedSequence((seed, *numbers)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)
