"""Training inputs of a control's classifier: the latents that it sees in guidance, at all levels of noise."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.word_latents import pool_words
from dlmctl.diffusion.absorbing import with_fixed_words
from dlmctl.diffusion.masked import MaskedLM, attended, maskable_places
from dlmctl.diffusion.masked_base import noised
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.process import q_sample
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.diffusion.uniform_noise import UniformModel
from dlmctl.models.numerics import at_least_float32
from dlmctl.text.tokenizer import Tokenizer

# Most scores of words that are held at once: half a gigabyte in float32.
MOST_SCORES = 1 << 27


class Latents(NamedTuple):
    """Latents ``x [B, L, D]`` of words, and the noise levels ``t [B]`` that the classifier receives."""

    x: Tensor
    t: Tensor


class Inputs(Protocol):
    """Makes latents of texts for a classifier.

    Attributes:
        kinds: descriptions of the kinds of latents by short name.
    """

    kinds: ClassVar[dict[str, str]]

    def batch(self, ids: Tensor) -> Latents:
        """Latents of texts ``ids [B, L]``, each at its own random noise level."""

    def at(self, level: float, ids: Tensor) -> dict[str, Latents]:
        """Latents of each of the ``kinds`` at one noise level, with the same noise every time."""


class LatentInputs:
    """Inputs for latent models. Half of a batch is latents x_t at random t (Li et al. 2022, section 5.1). The rest is
    the model's x_0 estimates from such latents, passed as noise level 0, as in guidance at the x_0 estimate."""

    kinds: ClassVar[dict[str, str]] = {"x_t": "of noisy latents", "x0": "of estimates from them"}

    def __init__(self, model: DiffusionLM, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def batch(self, ids: Tensor) -> Latents:
        clean = self.model.embed(ids)
        t = torch.rand(len(ids), dtype=torch.float64, device=ids.device)
        x = q_sample(self.model.schedule, clean, t, torch.randn_like(clean))
        half = len(ids) // 2
        if half:
            with torch.no_grad():
                estimate = self.model.predict(x[:half], t[:half]).x0.to(x)
            x = torch.cat([estimate, x[half:]])
            t = torch.cat([torch.zeros_like(t[:half]), t[half:]])
        return Latents(self._pooled(x, ids), t)

    def at(self, level: float, ids: Tensor) -> dict[str, Latents]:
        clean = self.model.embed(ids)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(ids.device)
        t = torch.full((len(ids),), level, dtype=torch.float64, device=ids.device)
        x = q_sample(self.model.schedule, clean, t, noise)
        estimate = self.model.predict(x, t).x0
        return {
            "x_t": Latents(self._pooled(x, ids), t),
            "x0": Latents(self._pooled(estimate, ids), torch.zeros_like(t)),
        }

    def _pooled(self, x: Tensor, ids: Tensor) -> Tensor:
        return pool_words(x, ids, self.tokenizer, self.model.embeddings.detach())


class WordInputs:
    """Inputs for masked and uniform models, which have no other latents: expected embeddings of the model's estimates
    from noisy texts, passed as noise level 0 as in guidance. They include texts with almost no noise."""

    kinds: ClassVar[dict[str, str]] = {"x0": "of estimates"}

    def __init__(self, model: MaskedLM | TokenLM, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def batch(self, ids: Tensor) -> Latents:
        return self._estimates(ids, torch.rand(len(ids), device=ids.device), torch.rand(ids.shape, device=ids.device))

    def at(self, level: float, ids: Tensor) -> dict[str, Latents]:
        order = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)).to(ids.device)
        return {"x0": self._estimates(ids, torch.full((len(ids),), level, device=ids.device), order)}

    @torch.no_grad()
    def _estimates(self, ids: Tensor, t: Tensor, order: Tensor) -> Latents:
        rows = max(1, MOST_SCORES // (ids.shape[1] * len(self.model.embeddings)))
        parts = zip(ids.split(rows), t.split(rows), order.split(rows), strict=True)
        return Latents(torch.cat([self._estimate(*part) for part in parts]), torch.zeros_like(t))

    def _estimate(self, ids: Tensor, t: Tensor, order: Tensor) -> Tensor:
        model, lengths = self.model, self.model.config.lengths
        positions = maskable_places(ids, self.tokenizer, lengths)
        mask = attended(ids, self.tokenizer) if model.hides_padding else None
        if isinstance(model, UniformModel):
            noisy, masked = model.noised(ids, positions, t[:, None], order), noised(ids, positions, model.mask_id)
            logits = model.seen(model.logits_at(noisy, t, attention_mask=mask), noisy, t)
        else:
            masked = noised(ids, positions & (order < t[:, None]), model.mask_id)
            logits = model.logits(masked, attention_mask=mask)
        probs = with_fixed_words(at_least_float32(logits), masked, model.mask_id).softmax(-1)
        return pool_words(at_least_float32(model.soft(probs)), ids, self.tokenizer, model.embeddings)


def inputs_of(pretrained: Pretrained) -> Inputs:
    """The inputs that a classifier for this model is trained on.

    Raises:
        ModelError: the model is neither a masked model nor one with latents, such as DiffusionGemma.
    """
    if isinstance(pretrained.model, MaskedLM | TokenLM):
        return WordInputs(pretrained.model.requires_grad_(False), pretrained.tokenizer)
    return LatentInputs(pretrained.latent.requires_grad_(False), pretrained.tokenizer)
