"""Packing of several short texts into one row, because a GPU's attention kernels process blocks of 64 positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Most positions of a packed row.
ROW = 64
# Elements that a kernel loads at once.
ALIGNED = 8


class Packing(NamedTuple):
    """A packing of ``texts`` texts of ``length`` positions each, ``together`` of them in a row."""

    texts: int
    length: int
    together: int

    @classmethod
    def of(cls, network: nn.Module, h: Tensor) -> Packing | None:
        """The packing of states ``h [B, L, H]`` without padding, in training on a GPU; None for a text per row."""
        texts, length = h.shape[:2]
        if not (network.training and h.is_cuda) or 2 * length > ROW:
            return None
        return cls(texts, length, ROW // length)

    def pack(self, h: Tensor) -> Tensor:
        """States ``[B, L, H]`` as ``[rows, together L, H]``, padded with zeros to whole rows, at least two.

        A batch of one row would make ``torch.compile`` recompile.
        """
        missing = max(2 * self.together - self.texts, -self.texts % self.together)
        padded = F.pad(h, (0, 0, 0, 0, 0, missing)) if missing else h
        # Copied, because a view would make ``torch.compile`` recompile: blocks pass on states that are not views.
        return padded.reshape(-1, self.together * self.length, h.shape[-1]).clone()

    def unpack(self, h: Tensor) -> Tensor:
        """The states ``[B, L, H]`` from packed ones."""
        return h.reshape(-1, self.length, h.shape[-1])[: self.texts]

    def mask(self, h: Tensor) -> Tensor:
        """The additive attention mask ``[1, 1, S, S]`` with which each text attends only to itself.

        It has the dtype of an enclosing autocast, else that of ``h``, and a memory layout that kernels take without a
        copy: a slice of longer rows, for every S, so that ``torch.compile`` compiles only one case.
        """
        width, device = self.together * self.length, h.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else h.dtype
        text = torch.arange(width + ALIGNED - width % ALIGNED, device=h.device) // self.length
        mask = torch.zeros(width, len(text), dtype=dtype, device=h.device)
        return mask.masked_fill_(text[:width, None] != text, -torch.inf)[None, None, :, :width]
