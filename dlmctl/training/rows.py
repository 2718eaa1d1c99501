"""Rows of a prepared data set as batches on the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlmctl.datasets.dataset import Split, padded

# Of a GPU's free memory, the share that a data set may take to be there as a whole.
MOST_OF_MEMORY = 1 / 8


class Rows:
    """Batches of a split, made by a few operations whatever their size.

    On a GPU the whole split lies there if it takes up little of its memory; else each batch is laid out in memory that
    the GPU can fetch from by itself.

    Args:
        split: the rows.
        fill: what stands behind a row that is shorter than its batch.
        device: of the batches.
    """

    def __init__(self, split: Split, fill: int, device: torch.device) -> None:
        self.split, self.fill, self.device = split, fill, device
        self.flat: Tensor | None = None
        if device.type == "cuda" and 4 * len(split.ids) <= MOST_OF_MEMORY * torch.cuda.mem_get_info(device)[0]:
            self.flat = torch.from_numpy(split.ids.astype(np.int32)).to(device)

    def of(self, rows: np.ndarray, width: int) -> Tensor:
        """Some rows ``[B, width]``, cut or filled up to the width, int64."""
        if self.flat is None:
            return sent(torch.from_numpy(padded(self.split, rows, width, self.fill)), self.device)
        starts, lengths = self.split.offsets[rows], self.split.offsets[rows + 1] - self.split.offsets[rows]
        bounds = sent(torch.from_numpy(np.stack([starts, lengths])), self.device)
        places = torch.arange(width, device=self.device)
        at = (bounds[0][:, None] + places).clamp(max=len(self.flat) - 1)
        return self.flat[at].long().masked_fill(places >= bounds[1][:, None], self.fill)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on ``device``; a GPU fetches one of the CPU when it comes to it, and nobody waits."""
    pinned = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if pinned else tensor.to(device)


def count_in_rows(split: Split, word: int) -> np.ndarray:
    """How often a word stands in each row."""
    found = np.flatnonzero(split.ids == word)
    return np.bincount(np.searchsorted(split.offsets, found, "right") - 1, minlength=len(split))
