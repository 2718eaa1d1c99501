"""Several short texts in one row, because a GPU's attention kernels work through blocks of 64 positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Positions of a row that short texts fill together.
ROW = 64
# Elements that a kernel loads at once.
ALIGNED = 8


class Packing(NamedTuple):
    """How ``texts`` of ``length`` positions each stand, ``together`` so many in a row."""

    texts: int
    length: int
    together: int

    @classmethod
    def of(cls, network: nn.Module, h: Tensor) -> Packing | None:
        """That of states ``[B, L, H]`` which all count, in training on a GPU; None where a row is a text."""
        texts, length = h.shape[:2]
        if not (network.training and h.is_cuda) or 2 * length > ROW:
            return None
        return cls(texts, length, ROW // length)

    def pack(self, h: Tensor) -> Tensor:
        """States ``[B, L, H]`` as ``[rows, together L, H]``, filled up with zeros to whole rows, two at least.

        For a compiler a batch of one row is another case.
        """
        missing = max(2 * self.together - self.texts, -self.texts % self.together)
        filled = F.pad(h, (0, 0, 0, 0, 0, missing)) if missing else h
        # A view would be another case for a compiler than the states that a block hands to the next.
        return filled.reshape(-1, self.together * self.length, h.shape[-1]).clone()

    def unpack(self, h: Tensor) -> Tensor:
        """The states ``[B, L, H]`` again."""
        return h.reshape(-1, self.length, h.shape[-1])[: self.texts]

    def mask(self, h: Tensor) -> Tensor:
        """What is added to the scores of attention, so that texts attend to themselves alone, ``[1, 1, S, S]``.

        In the type of an autocast around this, else that of ``h``, and laid out as kernels take it without a copy: in
        rows that are longer than they need be, and that whatever S, so that a compiler sees one case.
        """
        width, device = self.together * self.length, h.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else h.dtype
        text = torch.arange(width + ALIGNED - width % ALIGNED, device=h.device) // self.length
        found = torch.zeros(width, len(text), dtype=kind, device=h.device)
        return found.masked_fill_(text[:width, None] != text, -torch.inf)[None, None, :, :width]
