"""What the walk asks at every step: the model's estimate, steered by the controls.

Order at each step: predict (self-conditioned on the last estimate), restrict the words, guide, constrain. Where there
is a latent: round it if asked to, and pin the words that are settled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from dlmctl.control.prepared import Part, PreparedAll
from dlmctl.control.state import ControlState
from dlmctl.diffusion.family import Family, Moved, Prediction
from dlmctl.diffusion.layout import Layouts, special_bans
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import RecipeError, UserError
from dlmctl.models.numerics import widened
from dlmctl.recipe.settings import Guidance, Method, SamplerSettings
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.guidance import Gradient, shift_words, strength
from dlmctl.sampling.latent_guidance import langevin, pinned, rounded, shift_latent
from dlmctl.text.tokenizer import Tokenizer

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
    """The estimates for one batch.

    Args:
        family: with the prompts of the batch.
        control: prepared for this batch, or None for unguided text.
        layouts: of the rows.

    Attributes:
        problems: of each row whose energy stopped being a number, what happened; it goes on unguided.
    """

    def __init__(
        self,
        family: Family,
        model: DiffusionLM,
        vocabulary: Tokenizer,
        control: PreparedAll | None,
        guidance: Guidance,
        sampler: SamplerSettings,
        layouts: Layouts,
    ) -> None:
        self.family, self.model, self.vocabulary, self.control = family, model, vocabulary, control
        self.guidance, self.sampler, self.layouts, self.mask = guidance, sampler, layouts, layouts.mask
        self.banned = special_bans(layouts, vocabulary, model.config.vocab_size)
        # UNK stands for words the vocabulary lacks; a text has no use for it.
        self.banned[..., vocabulary.unk_id] = True
        # What word logits are held to exactly needs no gradient.
        parts = control.parts if control is not None else []
        self.parts = [part for part in parts if not (part.prepared.exact and model.predicts_words)]
        self.method = method_for(model, guidance) if self.parts else None
        self.embeddings = model.embeddings.detach()
        self.problems: dict[int, str] = {}
        self.previous: Tensor | None = None
        self.logits: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        predicted = self.family.predict(x_t, t, self.previous, self.mask)
        # The denoiser's precision ends here: exact constraints are exact in float32 only.
        with torch.autocast(x_t.device.type, enabled=False):
            steered = self._steer(predicted, x_t, t)
        self.previous, self.logits = steered.x0, steered.logits
        return steered

    def _steer(self, predicted: Prediction, x_t: Tensor, t: Tensor) -> Prediction:
        scale = strength(self.guidance, float(t[0])) if self.parts else 0.0
        logits = predicted.logits
        if logits is None:
            x0 = widened(predicted.x0)
        else:
            logits = self._guided(logits / self.sampler.temperature, scale, t)
            x0 = self.family.soft(logits.softmax(-1))
        if scale and self.method in ("latent", "denoiser"):
            alphabar = self.model.schedule.alphabar(t).to(x_t).reshape(-1, 1, 1)
            gradient = self._gradient(self._state_of_latent(t, through=self.method == "denoiser"), float(t[0]))
            x0, logits = shift_latent(x0, x_t, alphabar, gradient, scale), None
        if self.sampler.clamp:
            x0 = rounded(self.model, x0, logits)
        if logits is None:
            x0 = pinned(x0, self._allowed(), self.embeddings)
        return Prediction(lambda: x0, logits)

    def _guided(self, logits: Tensor, scale: float, t: Tensor) -> Tensor:
        logits = self._restrict(logits)
        if scale and self.method == "words":
            gradient = self._gradient(self._state_of_words, float(t[0]))
            logits = logits + shift_words(logits, gradient, scale, self.guidance.updates)
        return logits if self.control is None else self.control.constrain(logits, t)

    @torch.no_grad()
    def after(self, moved: Moved, s: float) -> Tensor:
        """The paper's guidance moves the latent after each draw; the other methods leave it."""
        if not self.parts or self.method != "langevin" or not strength(self.guidance, s):
            return moved.x
        times = torch.full((len(moved.x),), s, dtype=torch.float64, device=moved.x.device)
        gradient = self._gradient(self._state_of_latent(times), s)
        with torch.autocast(moved.x.device.type, enabled=False):
            return langevin(moved.x, moved.mean, moved.variance, gradient, self.guidance)

    @torch.no_grad()
    def words(self, x: Tensor) -> Tensor:
        """Word ids ``[B, L]`` of the finished latent, exact constraints kept."""
        scores = self.logits
        if scores is None or self.sampler.rounding is not None:
            scores = self._restrict(self.model.rounding_logits(x, self.sampler.rounding))
        if self.control is not None:
            scores = self.control.constrain(scores, torch.zeros(len(x), device=x.device))
        return scores.argmax(-1)

    def _restrict(self, logits: Tensor) -> Tensor:
        """``logits [B, L, V]`` with -inf for words that cannot stand where they are."""
        logits = logits.masked_fill(self.banned, -torch.inf)
        return logits if self.control is None else self.control.restrict(logits)

    def _allowed(self) -> Tensor:
        return ~torch.isneginf(self._restrict(torch.zeros(self.banned.shape, device=self.banned.device)))

    def _gradient(self, state_of: StateOf, t: float) -> Gradient:
        """The sum of the parts' gradients, each kept within ``guidance.clip``; rows that broke get none."""

        def gradient(at: Tensor) -> Tensor:
            total = torch.zeros_like(at)
            with torch.enable_grad(), networks_in(self.sampler.precision, at.device):
                leaf = at.detach().requires_grad_()
                # Of a leaf itself autocast would keep the cast copy until the whole batch is drawn.
                state = state_of(leaf.view_as(leaf))
                for part in self.parts:
                    energy = part.weight * _energy(part, state)
                    # Parts may share the x_0 estimate, so the graph is kept for the next one.
                    (found,) = torch.autograd.grad(energy.sum(), leaf, retain_graph=True)
                    total += self._clipped(part.name, energy.detach(), found, t)
            return total.masked_fill(self._broken(at.device), 0.0)

        return gradient

    def _clipped(self, name: str, energy: Tensor, gradient: Tensor, t: float) -> Tensor:
        finite = torch.isfinite(energy) & torch.isfinite(gradient).flatten(1).all(1)
        for row in (~finite).nonzero().flatten().tolist():
            self.problems.setdefault(row, f"the energy of {name} was not a number at t = {t:.2f}; unguided from there")
        norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        gradient = gradient * (self.guidance.clip / norm).clamp(max=1.0).reshape(-1, 1, 1)
        return gradient.masked_fill(~finite.reshape(-1, 1, 1), 0.0)

    def _broken(self, device: torch.device) -> Tensor:
        broken = torch.zeros(len(self.layouts.words), 1, 1, dtype=torch.bool, device=device)
        broken[list(self.problems)] = True
        return broken

    def _state(self, x0: Tensor, log_probs: Callable[[], Tensor]) -> ControlState:
        """A state whose latent is itself an x_0 estimate, and so at noise level 0."""
        return ControlState(
            x0,
            torch.zeros(len(x0), device=x0.device),
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=lambda: x0,
            word_log_probs=log_probs,
            mask=self.mask,
        )

    def _padded(self, log_probs: Tensor) -> Tensor:
        """Word log-probabilities with PAD for certain off each row's own positions."""
        if self.mask is None:
            return log_probs
        padding = torch.full_like(log_probs[0, 0], math.log(LEAST))
        padding[self.vocabulary.pad_id] = 0.0
        return torch.where(self.mask[..., None], log_probs, padding)

    def _state_of_words(self, probabilities: Tensor) -> ControlState:
        return self._state(widened(self.family.soft(probabilities)), probabilities.clamp(min=LEAST).log)

    def _state_of_latent(self, t: Tensor, *, through: bool = False) -> StateOf:
        """States of x_t for noise-aware energies; with ``through``, of the x_0 estimate made of it."""

        def state_of(x_t: Tensor) -> ControlState:
            @cache
            def predict() -> tuple[Tensor, Tensor]:
                found = self.family.predict(x_t, t, self.previous, self.mask)
                scores = self.model.rounding_logits(found.x0) if found.logits is None else found.logits
                return widened(found.x0), self._padded(widened(scores).log_softmax(-1))

            if through:
                return self._state(predict()[0], lambda: predict()[1])
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


def _energy(part: Part, state: ControlState) -> Tensor:
    """A part's energy ``[B]``.

    Raises:
        UserError: the control gives none, or something else.
    """
    where = f"control {part.name!r} ({type(part.prepared).__module__})"
    try:
        energy = part.prepared.energy(state)
    except NotImplementedError:
        raise UserError("what its prepare returns has no energy, and nothing else that steers.", where=where) from None
    if not isinstance(energy, Tensor) or energy.shape != (len(state.x),):
        shape = list(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
        what = f"its energy must have the shape [{len(state.x)}], one number a text, not {shape}."
        raise UserError(what, where=where)
    if not energy.requires_grad:
        raise UserError("its energy has no gradient: compute it from the state by torch, without detach.", where=where)
    return energy
