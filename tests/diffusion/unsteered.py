"""The Gaussian family without controls, from a given initial state if there is one."""

from __future__ import annotations

from torch import Tensor

from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.diffusion.gaussian import Gaussian
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.samplers import Rule


class Unsteered(Gaussian):
    """A family that is also its own steering."""

    def __init__(self, model: DiffusionLM, rule: Rule, x: Tensor | None = None, *, clamp: bool = False) -> None:
        super().__init__(model, rule)
        self.x, self.clamp = x, clamp

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        return super().start(layouts, noise) if self.x is None else self.x

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        x0 = self.predict(x_t, t, None, None).x0
        return Prediction(lambda: self.model.clamp(x0) if self.clamp else x0)

    def after(self, moved: StepResult, s: float) -> Tensor:
        return moved.x
