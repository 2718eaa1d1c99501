"""The exponential moving average of the weights, which is what a run saves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Averages(AveragedModel):
    """Exponential moving average of the weights, its decay warmed up so that early weights are forgotten.

    As ``AveragedModel`` it is saved and read, but its counter stays on the CPU, and all weights move in one call.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        # Going through all modules for them takes Python longer than a GPU takes to average them.
        self._averages: list[Tensor] = list(self.module.parameters())
        self._weights: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights of the model; the first time take them over."""
        count = int(self.n_averaged)
        kept = 0.0 if count == 0 else min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(self._averages, self._weights, 1 - kept)
        self.n_averaged += 1
