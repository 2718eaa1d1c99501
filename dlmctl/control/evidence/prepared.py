"""Evidence made ready for a batch: one row for each different target, and which row each place takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Most targets worked out at once, which bounds memory while rows are made.
CHUNK = 64

Target = TypeVar("Target", bound=Hashable)


@dataclass(frozen=True)
class Evidence:
    """Log-evidence of every word at every place of a batch, in two factors.

    Args:
        rows: nats ``[U, V]``, the first row zero: no evidence.
        index: the row of each place ``[B, L]``.
    """

    rows: Tensor
    index: Tensor

    def at(self, where: Tensor | None = None) -> Tensor:
        """Nats ``[B, L, V]``, or of the ``n`` places where ``where [B, L]`` is true ``[n, V]``."""
        return self.rows[self.index if where is None else self.index[where]]

    def add(self, logits: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` with the evidence added."""
        return logits + self.at().to(logits.dtype)

    def scaled(self, weight: float) -> Evidence:
        """The same evidence, ``weight`` times as strong."""
        return Evidence(weight * self.rows, self.index)

    def to(self, device: torch.device | str) -> Evidence:
        """The same on another device."""
        return Evidence(self.rows.to(device), self.index.to(device))


def prepare(
    texts: Sequence[Sequence[Target | None]],
    length: int,
    offset: int,
    size: int,
    rows_of: Callable[[Sequence[Target]], NDArray[np.float32]],
) -> Evidence:
    """Rows for the different targets of a batch.

    Args:
        texts: for each text a target for each word, None for a word without one.
        length: places L of the batch.
        offset: the place of the first word.
        size: words V of the vocabulary.
        rows_of: targets to nats ``[targets, V]``.
    """
    different = list(dict.fromkeys(target for text in texts for target in text if target is not None))
    numbers = {target: at for at, target in enumerate(different, start=1)}
    rows = torch.zeros(1 + len(different), size)
    for start in range(0, len(different), CHUNK):
        part = different[start : start + CHUNK]
        rows[1 + start : 1 + start + len(part)] = torch.from_numpy(rows_of(part))
    index = np.zeros((len(texts), length), dtype=np.int64)
    for row, text in enumerate(texts):
        found = [0 if target is None else numbers[target] for target in text][: max(0, length - offset)]
        index[row, offset : offset + len(found)] = found
    return Evidence(rows, torch.from_numpy(index))
