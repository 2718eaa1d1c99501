"""Several short texts in one row, because a GPU's attention kernels work through blocks of 64 positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Positions of a row that short texts fill together.
ROW = 64


class Packing(NamedTuple):
    """How ``texts`` of ``length`` positions each stand, ``together`` so many in a row."""

    texts: int
    length: int
    together: int

    @classmethod
    def of(cls, network: nn.Module, h: Tensor) -> Packing | None:
        """That of states ``[B, L, H]`` which all count, in training on a GPU; None where a row is a text."""
        texts, length = h.shape[:2]
        if not (network.training and h.is_cuda) or 2 * length > ROW or texts < 2:
            return None
        return cls(texts, length, ROW // length)

    def pack(self, h: Tensor) -> Tensor:
        """States ``[B, L, H]`` as ``[rows, together L, H]``, the last row filled up with zeros."""
        missing = -self.texts % self.together
        filled = F.pad(h, (0, 0, 0, 0, 0, missing)) if missing else h
        return filled.reshape(-1, self.together * self.length, h.shape[-1])

    def unpack(self, h: Tensor) -> Tensor:
        """The states ``[B, L, H]`` again."""
        return h.reshape(-1, self.length, h.shape[-1])[: self.texts]

    def mask(self, device: torch.device) -> Tensor:
        """Which positions of a row a position attends to: those of its own text, ``[1, 1, S, S]``."""
        text = torch.arange(self.together * self.length, device=device) // self.length
        return (text[:, None] == text)[None, None]
