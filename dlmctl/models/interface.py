"""The conditioning input of denoisers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Conditioning(NamedTuple):
    """The inputs of a denoiser besides latent and time; each is None if the model does not use it.

    Attributes:
        shift: ``[B, time_width]``, added to the time embedding.
        memory: ``[B, S, hidden]``, the encoded source for cross-attention.
        mask: ``[B, S]``, true for the words of the source, false for padding.
    """

    shift: Tensor | None = None
    memory: Tensor | None = None
    mask: Tensor | None = None
