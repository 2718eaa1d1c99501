"""What passes between a denoiser and those that ask it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Conditioning(NamedTuple):
    """What a denoiser is given beside latent and time, each None where the model has no such thing.

    Attributes:
        shift: ``[B, time_width]``, added to the time embedding.
        memory: ``[B, S, hidden]``, the encoded source that cross-attention reads.
        mask: ``[B, S]``, true where the source has a word.
    """

    shift: Tensor | None = None
    memory: Tensor | None = None
    mask: Tensor | None = None
