"""Where randomness comes from: each draw of each sample has streams of its own, in whatever batch it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.diffusion.philox import cut_normal, normal, philox, uniform

# What a stream is for; streams of one draw are independent of each other.
NOISE, LAYOUT, CONTROL, RESAMPLING, BRANCH = range(5)
# Of how many calls the noise is made at once, and at most how many numbers: on a CPU as many as its cache holds.
CALLS_AHEAD, MOST_AHEAD, MOST_AHEAD_CPU = 8, 1 << 22, 1 << 16


class Draw(NamedTuple):
    """One attempt at one sample of a run; all its randomness follows from these numbers.

    Of an attempt that has several particles each has a number of its own; the first one is the attempt without any.
    """

    seed: int
    sample: int
    attempt: int = 0
    particle: int = 0

    def generator(self, use: int) -> torch.Generator:
        """The stream of this draw for a use: ``NOISE``, ``LAYOUT``, or ``CONTROL`` for what a control draws itself."""
        state = self.seeds(use).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(state) % 2**63)

    def seeds(self, use: int) -> np.random.SeedSequence:
        """What the stream of this draw for a use begins with."""
        numbers = self.seed, self.sample, self.attempt, use
        return np.random.SeedSequence((*numbers, self.particle) if self.particle else numbers)


class SampleNoise:
    """Standard normal noise for a batch, from one stream per draw, on the device where it is wanted.

    Each number follows from its draw, the number of the call, its place and its column, whatever else is in the batch
    (``dlmctl.diffusion.philox``), so a seed means the same noise on every device, to rounding. After the first call
    several calls' noise is made at once: on a GPU one launch then does the work of many.

    Args:
        draws: one for each row of the batch.
        positions: how many of each row have noise, 0 behind them; all if not given.
        top_p: leave out what exceeds this absolute value (Diffusion-LM's noise truncation); None keeps all.

    Raises:
        ValueError: ``top_p`` is not positive.
    """

    def __init__(
        self, draws: Sequence[Draw], top_p: float | None = None, positions: Sequence[int] | None = None
    ) -> None:
        if top_p is not None and top_p <= 0:
            raise ValueError(f"top_p must be positive, got {top_p}")
        self.top_p, self.calls = top_p, 0
        keys = [draw.seeds(NOISE).generate_state(2, np.uint32) for draw in draws]
        self.keys = torch.from_numpy(np.array(keys, dtype=np.int64).reshape(-1, 2).T.copy())[:, None, :, None, None]
        shorter = positions is not None and len(set(positions)) > 1
        self.positions = torch.tensor(positions)[:, None, None] if shorter else None
        self._ahead: tuple[tuple[object, ...], Iterator[Tensor]] | None = None

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of the shape ``[B, L, D]``, type and device of ``like``; row i comes from stream i."""
        make = normal if self.top_p is None else partial(cut_normal, most=self.top_p)
        return self._next(make, like.shape[1], like.shape[2], like.device).to(like)

    def uniform(self, count: int, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), ``count`` for each place of ``like [B, L]``: ``[count, B, L]``, float32."""
        return self._next(uniform, like.shape[1], count, like.device).movedim(-1, 0)

    def _next(self, make: Callable[[Tensor], Tensor], length: int, width: int, device: torch.device) -> Tensor:
        """Numbers ``[B, length, width]`` of the next call."""
        asked = getattr(make, "func", make), length, width, device
        found = next(self._ahead[1], None) if self._ahead is not None and self._ahead[0] == asked else None
        if found is None:
            numbers = MOST_AHEAD_CPU if device.type == "cpu" else MOST_AHEAD
            most = numbers // max(1, self.keys.shape[2] * length * width)
            calls = min(CALLS_AHEAD, max(1, most)) if self.calls else 1
            self._ahead = asked, iter(self._made(make, calls, length, width, device).unbind(0))
            found = next(self._ahead[1])
        self.calls += 1
        return found

    def _made(
        self, make: Callable[[Tensor], Tensor], calls: int, length: int, width: int, device: torch.device
    ) -> Tensor:
        """Numbers ``[calls, B, length, width]`` of so many calls from the next one on."""
        if self.keys.device != device:
            self.keys = self.keys.to(device)
        blocks = -(-width // 4)
        at = torch.arange(length * blocks, device=device).view(length, blocks)
        call = torch.arange(self.calls, self.calls + calls, device=device).view(-1, 1, 1, 1)
        zero = torch.zeros((), dtype=torch.long, device=device)
        words = philox((at, call, zero, zero), self.keys)
        made = make(words).permute(1, 2, 3, 4, 0).flatten(-2)[..., :width]
        if self.positions is None:
            return made
        if self.positions.device != device:
            self.positions = self.positions.to(device)
        return made.masked_fill(torch.arange(length, device=device)[:, None] >= self.positions, 0.0)
