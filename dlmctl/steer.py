"""The denoiser that samplers call: the model's x_0 estimate, steered by a control.

Order at each step: predict (self-conditioned on the last estimate), guide, project exact constraints, clamp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from dlmctl.control import Control, ControlState
from dlmctl.diffusion import DiffusionLM, Rounding
from dlmctl.guidance import langevin, shift_latent, shift_words
from dlmctl.samplers import Step
from dlmctl.settings import Guidance
from dlmctl.tokenizer import Tokenizer


class Steered:
    """A ``Denoise`` and an ``OnStep`` for one batch.

    Args:
        control: prepared for this batch, or None for unguided text.
        clamp: replace the x_0 estimate by its nearest words at every step (Li et al. 2022, section 4.3).
        temperature: divides the word logits; below 1 is more cautious.
    """

    def __init__(
        self,
        model: DiffusionLM,
        tokenizer: Tokenizer,
        control: Control[Any] | None,
        guidance: Guidance,
        *,
        clamp: bool = False,
        temperature: float = 1.0,
    ) -> None:
        self.model, self.tokenizer, self.control, self.guidance = model, tokenizer, control, guidance
        self.clamp, self.temperature = clamp, temperature
        self.embeddings = model.embeddings.detach()
        self.previous: Tensor | None = None
        self.logits: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        x0, logits = self.model.predict(x_t, t, self.previous)
        control = self.control if float(t[0]) >= self.guidance.until else None
        if logits is not None:
            # UNK stands for words the vocabulary lacks; a text has no use for it.
            logits[..., self.tokenizer.unk_id] = -torch.inf
            logits = logits / self.temperature
            if control is not None and self.guidance.method == "words":
                logits = shift_words(logits, partial(self._energy_of_words, control), self.guidance)
            x0 = logits.softmax(-1) @ self.embeddings
        if control is not None and self.guidance.method == "latent":
            alphabar = self.model.schedule.alphabar(t).to(x_t).reshape(-1, 1, 1)
            energy = partial(self._energy_of_latent, control, t=t)
            x0, logits = shift_latent(x0, x_t, alphabar, energy, self.guidance), None
        if self.clamp:
            x0 = self.model.embed(self.model.words(x0, logits))
        if self.control is not None:
            x0 = self.control.project(x0, self._state(x0))
        self.previous, self.logits = x0, logits
        return x0

    @torch.no_grad()
    def on_step(self, step: Step) -> Tensor | None:
        """The paper's guidance moves the latent after each draw; the other methods leave it."""
        if self.control is None or self.guidance.method != "langevin" or step.s < self.guidance.until:
            return None
        s = torch.full((len(step.x),), step.s, dtype=torch.float64, device=step.x.device)
        energy = partial(self._energy_of_latent, self.control, t=s)
        return langevin(step.x, step.mean, step.variance, energy, self.guidance)

    @torch.no_grad()
    def words(self, x: Tensor, rounding: Rounding | None = None) -> Tensor:
        """Word ids ``[B, L]`` of the finished latent, exact constraints kept."""
        ids = self.model.words(x, self.logits, rounding)
        if self.control is None:
            return ids
        clean = self.model.embed(ids)
        return self.model.rounding_logits(self.control.project(clean, self._state(clean)), "l2").argmax(-1)

    def _state(self, x0: Tensor, log_probs: Callable[[], Tensor] | None = None) -> ControlState:
        """A state whose latent is itself an x_0 estimate, and so at noise level 0."""
        return ControlState(
            x0,
            torch.zeros(len(x0), device=x0.device),
            tokenizer=self.tokenizer,
            embeddings=self.embeddings,
            x0=lambda: x0,
            word_log_probs=log_probs or (lambda: self.model.rounding_logits(x0).log_softmax(-1)),
        )

    def _energy_of_words(self, control: Control[Any], probabilities: Tensor) -> Tensor:
        return control.energy(self._state(probabilities @ self.embeddings, probabilities.clamp(min=1e-20).log))

    def _energy_of_latent(self, control: Control[Any], x: Tensor, t: Tensor) -> Tensor:
        @cache
        def predict() -> tuple[Tensor, Tensor]:
            x0, logits = self.model.predict(x, t, self.previous)
            return x0, (self.model.rounding_logits(x0) if logits is None else logits).log_softmax(-1)

        return control.energy(
            ControlState(
                x,
                t,
                tokenizer=self.tokenizer,
                embeddings=self.embeddings,
                x0=lambda: predict()[0],
                word_log_probs=lambda: predict()[1],
            )
        )
