"""The weights of the best validation of a run, and the number of validations since then."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class BestWeights:
    """The averaged weights at the best validation of a run.

    Attributes:
        step: steps done at that validation, 0 before any; loss: its loss.
        waited: validations since then, none of which was better.
        weights: the averaged weights at that step, on the CPU.
    """

    def __init__(self) -> None:
        self.step, self.loss, self.waited = 0, math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def update(self, step: int, loss: float, model: nn.Module) -> None:
        """Keep the weights of ``model`` if their loss is the smallest so far; NaN never is."""
        if not loss < self.loss:
            self.waited += 1
            return
        self.step, self.loss, self.waited = step, loss, 0
        self.weights = {name: weight.detach().to("cpu", copy=True) for name, weight in model.state_dict().items()}

    def is_out_of_patience(self, patience: int) -> bool:
        """Whether ``patience`` validations in a row were no better; always False if it is 0."""
        return 0 < patience <= self.waited

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Copy the best weights into ``model``, if there are any."""
        if self.weights:
            model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.loss, self.waited = int(state["step"]), float(state["loss"]), int(state["waited"])
        self.weights = dict(state["weights"])
