"""Steering in the Gaussian family: latents are guided, rounded and pinned, and models may predict no logits."""

from __future__ import annotations

import math
from functools import cache, partial

import torch
from torch import Tensor

from dlmctl.control.prepared import PreparedAll
from dlmctl.control.state import ControlState
from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.diffusion.gaussian import Gaussian
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.process import to_like
from dlmctl.errors import RecipeError
from dlmctl.models.numerics import at_least_float32, times_on
from dlmctl.recipe.settings import Guidance, Method, SamplerSettings
from dlmctl.sampling.graphs import Outputs, Recorded
from dlmctl.sampling.guidance import strength
from dlmctl.sampling.latent_guidance import langevin, pinned, rounded, shift_latent
from dlmctl.sampling.steering import MIN_PROBABILITY, StateOf, Steered, evidence_of, needs_gradient
from dlmctl.sampling.trace import StepView
from dlmctl.text.tokenizer import Tokenizer


def method_for(model: DiffusionLM, guidance: Guidance) -> Method:
    """The requested guidance method, or the default of the model.

    Raises:
        RecipeError: ``logits`` is requested, but the model predicts latents.
    """
    if guidance.method == "logits" and not model.predicts_words:
        raise RecipeError(
            "`logits` needs a model that predicts words, and this one predicts latents.",
            where="guidance.method",
            remedy="Use langevin, latent or denoiser, or leave it out.",
        )
    return guidance.method or ("logits" if model.predicts_words else "langevin")


class LatentSteered(Steered):
    """The guided estimates for one batch of latents. Arguments as for ``Steered``."""

    def __init__(
        self,
        family: Gaussian,
        vocabulary: Tokenizer,
        control: PreparedAll | None,
        guidance: Guidance,
        sampler: SamplerSettings,
        layouts: Layouts,
        *,
        recorded: bool = False,
    ) -> None:
        self.model = family.model
        embeddings = self.model.embeddings.detach()
        super().__init__(family, embeddings, vocabulary, control, guidance, sampler, layouts, recorded=recorded)
        if control is not None and guidance.scale and not self.model.predicts_words:
            # Without word logits an exact constraint is one more energy.
            self.guide_by([part for part in control.guides if needs_gradient(part)])
        self.method = method_for(self.model, guidance) if self.parts else None
        self.guides_logits = self.method == "logits"
        if self.parts and not self.guides_logits and control is not None:
            # The other methods move latents by gradients alone.
            self.evidence = evidence_of([part for part in control.guides if not part.prepared.gradient_too])
        self.previous: Tensor | None = None
        self.logits: Tensor | None = None
        # Reading off the words takes only a few calls, unless constraints must hold exactly.
        constrains = control is not None and control.phase(0.0) != control.phase(1.0)
        self.recorded_end = Recorded(recorded and constrains and not any(part.prepared.looks for part in self.parts))
        self.recorded_langevin = Recorded(recorded)

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        t_value, t_device = float(t[0]), times_on(x_t.device, t)
        if self.previous is None and self.recorded_estimate.enabled:
            self.previous = torch.zeros_like(x_t)
        x0, self.logits, own_x0, own_logits = self.recorded_estimate(
            self.graph_key(t_value), partial(self._estimate, t_value), x_t, t_device, self.previous
        )
        assert x0 is not None
        self.previous = x0
        steered = Prediction(lambda: x0, self.logits)
        if own_x0 is not None:
            self.record(StepView(t_value, x_t, Prediction(lambda: own_x0, own_logits), steered))
        return steered

    def _estimate(self, t_value: float, x_t: Tensor, t: Tensor, previous: Tensor | None = None) -> Outputs:
        """The guided x_0 ``[B, L, D]`` and word logits ``[B, L, V]`` (if the model has them), and both of the model's
        own estimate for the recorder; all of ``t [B]`` equal ``t_value``."""
        predicted = self.family.predict(x_t, t, previous, self.mask)
        with torch.autocast(x_t.device.type, enabled=False):
            steered = self._steer(predicted, t_value, x_t, t, previous)
        own = (None, None) if self.recorder is None else (predicted.x0, predicted.logits)
        return steered.x0, steered.logits, *own

    def word_ids(self, estimate: Prediction) -> Tensor:
        return self.model.token_ids(estimate.x0, estimate.logits)

    def own_words(self, own: Prediction, rows: Tensor) -> tuple[Tensor, Tensor]:
        if own.logits is not None:
            return super().own_words(own, rows)
        x0 = at_least_float32(own.x0.index_select(0, rows))
        logits = at_least_float32(self.model.rounding_logits(x0))
        return x0, logits.masked_fill(self.banned.index_select(0, rows), math.log(MIN_PROBABILITY)).log_softmax(-1)

    def _steer(
        self, predicted: Prediction, t_value: float, x_t: Tensor, t: Tensor, previous: Tensor | None
    ) -> Prediction:
        logits = predicted.logits
        if logits is None:
            x0 = at_least_float32(predicted.x0)
        else:
            constraint_t = torch.full((len(x_t),), t_value, dtype=torch.float64)
            logits = self.guided(logits / self.sampler.temperature, t_value, t, constraint_t)
            x0 = self.family.soft(logits.softmax(-1))
        scale = strength(self.guidance, t_value) if self.parts else 0.0
        if scale and self.method in ("latent", "denoiser"):
            alphabar = to_like(self.model.schedule.alphabar(t), x_t).reshape(-1, 1, 1)
            gradient = self.gradient(self._state_of_latent(t, previous, through=self.method == "denoiser"), t)
            x0, logits = shift_latent(x0, x_t, alphabar, gradient, scale), None
        if self.sampler.clamp:
            x0 = rounded(self.model, x0, logits)
        if logits is None:
            allowed = ~torch.isneginf(self.restrict(torch.zeros(self.banned.shape, device=x0.device)))
            x0 = pinned(x0, allowed, self.embeddings)
        return Prediction(lambda: x0, logits)

    @torch.no_grad()
    def after(self, moved: StepResult, s: float) -> Tensor:
        """The draw, moved by the paper's guidance; the other methods leave it unchanged."""
        if not self.parts or self.method != "langevin" or not strength(self.guidance, s):
            return moved.x
        times = times_on(moved.x.device, torch.full((len(moved.x),), s, dtype=torch.float64))
        inputs = moved.x, moved.mean, moved.variance, times, self.previous
        (x,) = self.recorded_langevin(self.graph_key(s), self._langevin, *inputs)
        assert x is not None
        return x

    def _langevin(self, x: Tensor, mean: Tensor, variance: Tensor, t: Tensor, previous: Tensor | None) -> Outputs:
        gradient = self.gradient(self._state_of_latent(t, previous), t)
        with torch.autocast(x.device.type, enabled=False):
            return (langevin(x, mean, variance, gradient, self.guidance),)

    def expected(self, estimate: Prediction) -> Tensor:
        logits = self.model.rounding_logits(estimate.x0) if estimate.logits is None else estimate.logits
        return logits.softmax(-1)

    def take(self, rows: Tensor) -> None:
        super().take(rows)
        self.previous, self.logits = (
            None if tensor is None else tensor.index_select(0, rows) for tensor in (self.previous, self.logits)
        )

    @torch.no_grad()
    def token_ids(self, x: Tensor) -> Tensor:
        """Word ids ``[B, L]`` of the finished latent, exact constraints kept."""
        scores = self.logits
        if scores is None or self.sampler.rounding is not None:
            scores = self.restrict(self.model.rounding_logits(x, self.sampler.rounding))
        (ids,) = self.recorded_end(None, self._end, scores)
        assert ids is not None
        return ids

    def _end(self, scores: Tensor) -> Outputs:
        if self.control is not None:
            scores = self.control.constrain(scores, torch.zeros(len(scores), dtype=torch.float64))
        return (scores.max(-1).indices,)

    def _padded(self, log_probs: Tensor) -> Tensor:
        """Word log-probabilities in which PAD is certain outside each row's own positions."""
        if self.mask is None:
            return log_probs
        padding = torch.full_like(log_probs[0, 0], math.log(MIN_PROBABILITY))
        padding[self.vocabulary.pad_id] = 0.0
        return torch.where(self.mask[..., None], log_probs, padding)

    def _state_of_latent(self, t: Tensor, previous: Tensor | None, *, through: bool = False) -> StateOf:
        """States of x_t for noise-aware energies; with ``through``, of the x_0 estimate computed from it."""

        def state_of(x_t: Tensor) -> ControlState:
            @cache
            def predict() -> tuple[Tensor, Tensor]:
                predicted = self.family.predict(x_t, t, previous, self.mask)
                scores = predicted.logits
                if scores is None:
                    scores = self.model.rounding_logits(predicted.x0)
                return at_least_float32(predicted.x0), self._padded(at_least_float32(scores).log_softmax(-1))

            if through:
                return self.state(predict()[0], lambda: predict()[1])
            return ControlState(
                x_t,
                t,
                vocabulary=self.vocabulary,
                embeddings=self.embeddings,
                x0=lambda: predict()[0],
                word_log_probs=lambda: predict()[1],
                mask=self.mask,
            )

        return state_of
