"""The exponential moving average of the weights, which a run saves as its result."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Averages(AveragedModel):
    """Exponential moving average of the weights, with a decay that warms up so that early weights are forgotten.

    Saved and loaded like ``AveragedModel``, but its counter stays on the CPU, and all weights are updated in one call.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay
        # Collecting these from the modules at every step would take Python longer than a GPU takes to average them.
        self._averages: list[Tensor] = list(self.module.parameters())
        self._weights: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights of the model; the first call copies them."""
        count = int(self.n_averaged)
        decay = 0.0 if count == 0 else min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        self.n_averaged += 1
