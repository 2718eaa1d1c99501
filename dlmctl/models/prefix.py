"""Keys and values of finished blocks, kept from one step of a walk to the next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Prefix:
    """The keys and values of the first positions of a batch, for networks that attend by blocks.

    Nothing in a block depends on later blocks, so what a finished one adds to the attention of later ones never
    changes. To networks of ``transformers`` this is a cache; ``update`` and ``get_seq_length`` are all that they use.

    Attributes:
        ids: the tokens ``[B, P]`` of the kept positions.
    """

    def __init__(self) -> None:
        self.ids: Tensor | None = None
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._grown: dict[int, tuple[Tensor, Tensor]] = {}

    def kept(self, ids: Tensor) -> int:
        """How many positions of ``ids [B, S]`` are kept. If a token has changed, all are forgotten.

        Waits for the device.
        """
        if self.ids is None:
            return 0
        size = self.ids.shape[1]
        if self.ids.shape[0] != len(ids) or size > ids.shape[1] or not torch.equal(self.ids, ids[:, :size]):
            self.ids, self._layers = None, {}
            return 0
        return size

    def get_seq_length(self, *_: Any) -> int:
        """The number of kept positions."""
        return 0 if self.ids is None else self.ids.shape[1]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The ``keys`` and ``values [B, heads, L, d]`` of a layer after those that are kept."""
        if layer_idx in self._layers:
            kept_keys, kept_values = self._layers[layer_idx]
            keys, values = torch.cat([kept_keys, keys], -2), torch.cat([kept_values, values], -2)
        self._grown[layer_idx] = keys, values
        return keys, values

    def keep(self, ids: Tensor) -> None:
        """Keep what the last call computed for the tokens ``ids [B, P]``, which may no longer change."""
        size = ids.shape[1]
        if size != self.get_seq_length():  # within a block the same positions stay kept, which need not be copied again
            self.ids = ids
            self._layers = {
                layer: (keys[..., :size, :].contiguous(), values[..., :size, :].contiguous())
                for layer, (keys, values) in self._grown.items()
            }
        self._grown = {}
