"""Random streams: each draw of each sample has its own, independent of its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.diffusion.philox import cut_normal, normal, philox, round_keys, uniform

# The uses of a stream; the streams of a draw are independent of each other.
NOISE, LAYOUT, CONTROL, RESAMPLING, BRANCH = range(5)
# How many calls' noise is generated at once, and at most how many numbers: on a CPU, as many as fit its cache.
CALLS_AHEAD, MOST_AHEAD, MOST_AHEAD_CPU = 32, 1 << 22, 1 << 16


class Draw(NamedTuple):
    """One attempt at one sample of a run; these numbers determine all its randomness.

    The particles of an attempt are numbered from 0; particle 0 has the randomness of an attempt without particles.
    """

    seed: int
    sample: int
    attempt: int = 0
    particle: int = 0

    def generator(self, use: int) -> torch.Generator:
        """The random stream of this draw for a use, such as ``LAYOUT``, or ``CONTROL`` for a control's own draws."""
        state = self.seeds(use).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) % 2**63)

    def seeds(self, use: int) -> np.random.SeedSequence:
        """The seed sequence of this draw's stream for a use."""
        numbers = self.seed, self.sample, self.attempt, use
        return np.random.SeedSequence((*numbers, self.particle) if self.particle else numbers)


class SampleNoise:
    """Standard normal noise for a batch, from one stream per draw, generated on the requested device.

    Each number depends only on its draw, the index of the call, its position and its column, not on the rest of the
    batch (``dlmctl.diffusion.philox``), so a seed gives the same noise on every device, up to rounding. After the first
    call, the noise of several calls is generated at once, which saves kernel launches on a GPU.

    Args:
        draws: one for each row of the batch.
        top_p: truncate the distribution at this absolute value (Diffusion-LM's noise truncation); None for no limit.
        positions: how many positions of each row have noise, with 0 after them; all if not given.

    Raises:
        ValueError: ``top_p`` is not positive.
    """

    def __init__(
        self, draws: Sequence[Draw], top_p: float | None = None, positions: Sequence[int] | None = None
    ) -> None:
        if top_p is not None and top_p <= 0:
            raise ValueError(f"top_p must be positive, got {top_p}")
        self.top_p, self.calls = top_p, 0
        keys = np.array([draw.seeds(NOISE).generate_state(2, np.uint32) for draw in draws], dtype=np.int64)
        # Of each round, for [calls, B, length, blocks].
        self.keys = round_keys(torch.from_numpy(keys.reshape(-1, 2).T.copy())[:, None, :, None, None])
        lengths_differ = positions is not None and len(set(positions)) > 1
        self.positions = torch.tensor(positions)[:, None, None] if lengths_differ else None
        self._ahead: tuple[tuple[object, ...], Iterator[Tensor]] | None = None

    def __call__(self, like: Tensor) -> Tensor:
        """Noise with the shape ``[B, L, D]``, dtype and device of ``like``; row i comes from stream i."""
        transform = normal if self.top_p is None else partial(cut_normal, most=self.top_p)
        return self._next(transform, like.shape[1], like.shape[2], like.device).to(like)

    def uniform(self, count: int, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), ``count`` for each position of ``like [B, L]``: ``[count, B, L]``, float32."""
        return self._next(uniform, like.shape[1], count, like.device).movedim(-1, 0)

    def _next(self, transform: Callable[[Tensor], Tensor], length: int, width: int, device: torch.device) -> Tensor:
        """The numbers ``[B, length, width]`` of the next call."""
        key = getattr(transform, "func", transform), length, width, device
        numbers = next(self._ahead[1], None) if self._ahead is not None and self._ahead[0] == key else None
        if numbers is None:
            most_numbers = MOST_AHEAD_CPU if device.type == "cpu" else MOST_AHEAD
            most_calls = most_numbers // max(1, self.keys.shape[3] * length * width)
            calls = min(CALLS_AHEAD, max(1, most_calls)) if self.calls else 1
            self._ahead = key, iter(self._generate(transform, calls, length, width, device).unbind(0))
            numbers = next(self._ahead[1])
        self.calls += 1
        return numbers

    def _generate(
        self, transform: Callable[[Tensor], Tensor], calls: int, length: int, width: int, device: torch.device
    ) -> Tensor:
        """The numbers ``[calls, B, length, width]`` of the next ``calls`` calls."""
        if self.keys.device != device:
            self.keys = self.keys.to(device)
        blocks = -(-width // 4)
        block = torch.arange(length * blocks, device=device).view(length, blocks)
        call = torch.arange(self.calls, self.calls + calls, device=device).view(-1, 1, 1, 1)
        zero = torch.zeros((), dtype=torch.long, device=device)
        random_bits = philox((block, call, zero, zero), self.keys)
        numbers = transform(random_bits).permute(1, 2, 3, 4, 0).flatten(-2)[..., :width]
        if self.positions is None:
            return numbers
        if self.positions.device != device:
            self.positions = self.positions.to(device)
        return numbers.masked_fill(torch.arange(length, device=device)[:, None] >= self.positions, 0.0)
