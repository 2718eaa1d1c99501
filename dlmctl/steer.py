"""The denoiser that samplers call: the model's x_0 estimate, steered by a control.

Order at each step: predict (self-conditioned on the last estimate), restrict the words, guide, condition, clamp,
project exact constraints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dlmctl.canvas import Layouts, pin_structure, structure_bans
from dlmctl.compose import parts_of
from dlmctl.conditioned import Conditioned
from dlmctl.control import Control, ControlState
from dlmctl.diffusion import DiffusionLM, Prediction
from dlmctl.errors import RecipeError
from dlmctl.guidance import Gradient, langevin, shift_latent, shift_words, strength
from dlmctl.precision import networks_in, widened
from dlmctl.samplers import Step
from dlmctl.settings import Guidance, Method, SamplerSettings
from dlmctl.tokenizer import Tokenizer

StateOf = Callable[[Tensor], ControlState]

# Stands for probability 0 where its logarithm would spoil a gradient.
LEAST = 1e-20


def method_for(model: DiffusionLM, guidance: Guidance) -> Method:
    """The guidance method asked for, or the one that suits the model.

    Raises:
        RecipeError: ``words`` is asked for, but the model predicts latents.
    """
    if guidance.method == "words" and not model.predicts_words:
        raise RecipeError(
            "`words` needs a model that predicts words, and this one predicts latents.",
            where="guidance.method",
            remedy="Use langevin, latent or denoiser, or leave it out.",
        )
    return guidance.method or ("words" if model.predicts_words else "langevin")


class Steered:
    """A ``Denoise`` and an ``OnStep`` for one batch.

    Args:
        conditioned: the model, and what the texts are given.
        control: prepared for this batch, or None for unguided text.
        layouts: of the rows.

    Attributes:
        problems: of each row whose energy stopped being a number, what happened; it goes on unguided.
    """

    def __init__(
        self,
        conditioned: Conditioned,
        tokenizer: Tokenizer,
        control: Control[Any] | None,
        guidance: Guidance,
        sampler: SamplerSettings,
        layouts: Layouts,
    ) -> None:
        self.predict, self.model = conditioned.predict, conditioned.model
        self.tokenizer, self.control, self.guidance = tokenizer, control, guidance
        self.sampler, self.layouts, self.inside = sampler, layouts, conditioned.inside
        self.banned = structure_bans(layouts, tokenizer, self.model.config.vocab_size)
        # UNK stands for words the vocabulary lacks; a text has no use for it.
        self.banned[..., tokenizer.unk_id] = True
        parts = parts_of(control) if control is not None else []
        # What word logits are held to exactly needs no gradient.
        self.parts = [part for part in parts if not (part.exact and self.model.predicts_words)]
        self.method = method_for(self.model, guidance) if self.parts else None
        self.embeddings = self.model.embeddings.detach()
        self.problems: dict[int, str] = {}
        self.previous: Tensor | None = None
        self.logits: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        predicted = self.predict(x_t, t, self.previous)
        # The denoiser's precision ends here: exact constraints are exact in float32 only.
        with torch.autocast(x_t.device.type, enabled=False):
            return self._steer(predicted, x_t, t)

    def _steer(self, predicted: Prediction, x_t: Tensor, t: Tensor) -> Tensor:
        logits = predicted.logits
        method, scale = self.method, strength(self.guidance, float(t[0])) if self.parts else 0.0
        if logits is not None:
            logits = self._restrict(logits / self.sampler.temperature)
            if scale and method == "words":
                gradient = self._gradient(self._state_of_words, float(t[0]))
                logits = logits + shift_words(logits, gradient, scale, self.guidance.updates)
            if self.control is not None:
                logits = self.control.condition(logits, t)
            x0 = logits.softmax(-1) @ self.embeddings
        else:
            x0 = widened(predicted.x0)
        if scale and method in ("latent", "denoiser"):
            alphabar = self.model.schedule.alphabar(t).to(x_t).reshape(-1, 1, 1)
            gradient = self._gradient(self._state_of_latent(t, through=method == "denoiser"), float(t[0]))
            x0, logits = shift_latent(x0, x_t, alphabar, gradient, scale), None
        if self.sampler.clamp:
            x0 = self.model.embed(self.model.words(x0, logits))
        x0 = self._exact(x0)
        self.previous, self.logits = x0, logits
        return x0

    @torch.no_grad()
    def on_step(self, step: Step) -> Tensor | None:
        """The paper's guidance moves the latent after each draw; the other methods leave it."""
        if not self.parts or self.method != "langevin" or not strength(self.guidance, step.s):
            return None
        s = torch.full((len(step.x),), step.s, dtype=torch.float64, device=step.x.device)
        gradient = self._gradient(self._state_of_latent(s), step.s)
        with torch.autocast(step.x.device.type, enabled=False):
            return langevin(step.x, step.mean, step.variance, gradient, self.guidance)

    @torch.no_grad()
    def words(self, x: Tensor) -> Tensor:
        """Word ids ``[B, L]`` of the finished latent, exact constraints kept."""
        scores = self.logits
        if scores is None or self.sampler.rounding is not None:
            scores = self._restrict(self.model.rounding_logits(x, self.sampler.rounding))
        if self.control is not None:
            scores = self.control.condition(scores, torch.zeros(len(x), device=x.device))
        ids = scores.argmax(-1)
        words = self.model.embed(ids)
        exact = self._exact(words)
        moved = (exact != words).any(-1)
        ids[moved] = self.model.rounding_logits(exact[moved][None], "l2").argmax(-1)[0]
        return ids

    def _restrict(self, logits: Tensor) -> Tensor:
        """``logits [B, L, V]`` with -inf for words that cannot stand where they are."""
        logits = logits.masked_fill(self.banned, -torch.inf)
        return logits if self.control is None else self.control.restrict(logits)

    def _exact(self, x0: Tensor) -> Tensor:
        """``x0 [B, L, D]`` with what must stand in it: the settled number of words, and the control's projection."""
        if self.control is not None:
            x0 = self.control.project(x0, self._state(x0))
        return pin_structure(x0, self.layouts, self.tokenizer, self.embeddings)

    def _gradient(self, state_of: StateOf, t: float) -> Gradient:
        """The sum of the parts' gradients, each kept within ``guidance.clip``; rows that broke get none."""

        def gradient(at: Tensor) -> Tensor:
            total = torch.zeros_like(at)
            with torch.enable_grad(), networks_in(self.sampler.precision, at.device):
                leaf = at.detach().requires_grad_()
                # Of a leaf itself autocast would keep the cast copy until the whole batch is drawn.
                state = state_of(leaf.view_as(leaf))
                for part in self.parts:
                    energy = part.weight * part.energy(state)
                    if not energy.requires_grad:  # a control that only projects
                        continue
                    # Parts may share the x_0 estimate, so the graph is kept for the next one.
                    (slope,) = torch.autograd.grad(energy.sum(), leaf, retain_graph=True)
                    total += self._tamed(part.name, energy.detach(), slope, t)
            return total.masked_fill(self._broken(at.device), 0.0)

        return gradient

    def _tamed(self, name: str, energy: Tensor, slope: Tensor, t: float) -> Tensor:
        finite = torch.isfinite(energy) & torch.isfinite(slope).flatten(1).all(1)
        for row in (~finite).nonzero().flatten().tolist():
            self.problems.setdefault(row, f"the energy of {name} was not a number at t = {t:.2f}; unguided from there")
        norm = slope.flatten(1).norm(dim=1).clamp(min=1e-12)
        slope = slope * (self.guidance.clip / norm).clamp(max=1.0).reshape(-1, 1, 1)
        return slope.masked_fill(~finite.reshape(-1, 1, 1), 0.0)

    def _broken(self, device: torch.device) -> Tensor:
        broken = torch.zeros(len(self.layouts.words), 1, 1, dtype=torch.bool, device=device)
        broken[list(self.problems)] = True
        return broken

    def _state(self, x0: Tensor, log_probs: Callable[[], Tensor] | None = None) -> ControlState:
        """A state whose latent is itself an x_0 estimate, and so at noise level 0."""
        return ControlState(
            x0,
            torch.zeros(len(x0), device=x0.device),
            tokenizer=self.tokenizer,
            embeddings=self.embeddings,
            x0=lambda: x0,
            word_log_probs=log_probs or (lambda: self._on_canvas(self.model.rounding_logits(x0).log_softmax(-1))),
            inside=self.inside,
        )

    def _on_canvas(self, log_probs: Tensor) -> Tensor:
        """Word log-probabilities with PAD for certain off each row's canvas."""
        if self.inside is None:
            return log_probs
        padding = torch.full_like(log_probs[0, 0], math.log(LEAST))
        padding[self.tokenizer.pad_id] = 0.0
        return torch.where(self.inside[..., None], log_probs, padding)

    def _state_of_words(self, probabilities: Tensor) -> ControlState:
        return self._state(widened(probabilities @ self.embeddings), probabilities.clamp(min=LEAST).log)

    def _state_of_latent(self, t: Tensor, *, through: bool = False) -> StateOf:
        """States of x_t for noise-aware energies; with ``through``, of the x_0 estimate made of it."""

        def state_of(x_t: Tensor) -> ControlState:
            @cache
            def predict() -> tuple[Tensor, Tensor]:
                found = self.predict(x_t, t, self.previous)
                scores = self.model.rounding_logits(found.x0) if found.logits is None else found.logits
                return widened(found.x0), self._on_canvas(widened(scores).log_softmax(-1))

            if through:
                return self._state(predict()[0], lambda: predict()[1])
            return ControlState(
                x_t,
                t,
                tokenizer=self.tokenizer,
                embeddings=self.embeddings,
                x0=lambda: predict()[0],
                word_log_probs=lambda: predict()[1],
                inside=self.inside,
            )

        return state_of
