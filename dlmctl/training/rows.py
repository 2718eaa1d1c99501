"""Rows of a prepared data set as batches on the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlmctl.datasets.dataset import Split, padded_batch
from dlmctl.diffusion.layout import SPECIAL

# The largest share of a GPU's free memory that a data set may take up to be kept there as a whole.
MAX_MEMORY_SHARE = 1 / 8


class Rows:
    """Batches of a split, made by a few operations whatever their size.

    A split that is small against the free memory of a GPU is kept there; otherwise each batch is made in pinned memory
    and copied asynchronously.

    Args:
        split: the rows.
        fill: the padding value of rows shorter than the batch.
        device: of the batches.
    """

    def __init__(self, split: Split, fill: int, device: torch.device) -> None:
        self.split, self.fill, self.device = split, fill, device
        self.flat: Tensor | None = None
        if device.type == "cuda" and 4 * len(split.ids) <= MAX_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.flat = torch.from_numpy(split.ids.astype(np.int32)).to(device)

    def batch(self, rows: np.ndarray, width: int) -> Tensor:
        """The given rows ``[B, width]``, cut or padded to the width, int64."""
        if self.flat is None:
            return to_device(torch.from_numpy(padded_batch(self.split, rows, width, self.fill)), self.device)
        starts, lengths = self.split.offsets[rows], self.split.offsets[rows + 1] - self.split.offsets[rows]
        bounds = to_device(torch.from_numpy(np.stack([starts, lengths])), self.device)
        columns = torch.arange(width, device=self.device)
        indices = (bounds[0][:, None] + columns).clamp(max=len(self.flat) - 1)
        return self.flat[indices].long().masked_fill(columns >= bounds[1][:, None], self.fill)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; copies from the CPU to a GPU are asynchronous."""
    pinned = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if pinned else tensor.to(device)


def length_counts(split: Split) -> list[int]:
    """The number of rows of a split by their number of words (or tokens), from 0."""
    counts: list[int] = np.bincount(np.clip(split.lengths - SPECIAL, 0, None)).tolist()
    return counts


def count_in_rows(split: Split, token_id: int) -> np.ndarray:
    """How often a token occurs in each row."""
    positions = np.flatnonzero(split.ids == token_id)
    return np.bincount(np.searchsorted(split.offsets, positions, "right") - 1, minlength=len(split))
