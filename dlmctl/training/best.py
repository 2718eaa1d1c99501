"""The weights of the best validation of a run, and how long none has been better."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Best:
    """What a run keeps of its best validation.

    Attributes:
        step: steps done at that validation, 0 where there was none; loss: its loss.
        waited: validations since then, none of which was better.
        weights: the averaged weights then, on the CPU.
    """

    def __init__(self) -> None:
        self.step, self.loss, self.waited = 0, math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def take(self, step: int, loss: float, model: nn.Module) -> None:
        """Keep the weights of ``model`` if their loss is the least so far; one that is no number never is."""
        if not loss < self.loss:
            self.waited += 1
            return
        self.step, self.loss, self.waited = step, loss, 0
        self.weights = {name: weight.detach().to("cpu", copy=True) for name, weight in model.state_dict().items()}

    def spent(self, patience: int) -> bool:
        """Whether ``patience`` validations in a row were no better; never where it is 0."""
        return 0 < patience <= self.waited

    @torch.no_grad()
    def give(self, model: nn.Module) -> None:
        """Write the weights kept into ``model``, if there are any."""
        if self.weights:
            model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.loss, self.waited = int(state["step"]), float(state["loss"]), int(state["waited"])
        self.weights = dict(state["weights"])
