"""The Gaussian family: latents over word embeddings (Li et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.process import to_like
from dlmctl.diffusion.samplers import Rule
from dlmctl.models.interface import Conditioning


class Gaussian:
    """A ``Family`` whose states are latents ``[B, L, D]``.

    Args:
        rule: the sampler's rule, created for this walk.
        conditioning: labels or sources of the batch.
    """

    def __init__(self, model: DiffusionLM, rule: Rule, conditioning: Conditioning | None = None) -> None:
        self.model, self.rule, self.conditioning = model, rule, conditioning
        self.embeddings = model.embeddings.detach()

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        device = self.model.embeddings.device
        return noise(torch.empty(len(layouts.words), layouts.length, self.model.config.embed_dim, device=device))

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        return self.model.predict(x, t, previous, self.conditioning, mask)

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> StepResult:
        mean, variance = self.rule(x, estimate.x0, t, s)
        if float(s[0]) == 0 or float(variance.max()) == 0:
            return StepResult(mean, mean, to_like(variance, x))
        return StepResult(mean + to_like(variance.sqrt(), x) * noise(mean), mean, to_like(variance, x))

    def skips(self, x: Tensor, noise: SampleNoise) -> bool:
        return False

    def finished(self, x: Tensor) -> None:
        """The last step may change all texts."""

    def take(self, rows: Tensor) -> None:
        """Nothing to do: texts that replace each other have the same label and source."""

    def soft(self, probabilities: Tensor) -> Tensor:
        return probabilities @ self.embeddings
