"""What a control's classifier is shown of a text in training: what guidance will show it, at all levels of noise."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.word_latents import pooled
from dlmctl.diffusion.absorbing import with_certain
from dlmctl.diffusion.masked import MaskedLM, attended, word_places
from dlmctl.diffusion.masked_base import noised
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.process import q_sample
from dlmctl.diffusion.uniform import UniformLM
from dlmctl.models.numerics import widened
from dlmctl.text.tokenizer import Tokenizer


class Shown(NamedTuple):
    """Latents ``x [B, L, D]`` of words at the noise levels ``t [B]`` that the classifier is told."""

    x: Tensor
    t: Tensor


class Inputs(Protocol):
    """Texts as a classifier sees them.

    Attributes:
        kinds: of latents, by short name.
    """

    kinds: ClassVar[dict[str, str]]

    def batch(self, ids: Tensor) -> Shown:
        """Texts ``ids [B, L]``, each at a level of its own."""

    def at(self, level: float, ids: Tensor) -> dict[str, Shown]:
        """Texts at one level of noise, of each of the ``kinds``, with the same noise every time."""


class LatentInputs:
    """Half of a batch is latents x_t at random t (Li et al. 2022, section 5.1). The other half is the model's own x_0
    estimates from such latents, given as noise level 0: what guidance at the x_0 estimate shows."""

    kinds: ClassVar[dict[str, str]] = {"x_t": "of noisy latents", "x0": "of estimates from them"}

    def __init__(self, model: DiffusionLM, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def batch(self, ids: Tensor) -> Shown:
        clean = self.model.embed(ids)
        t = torch.rand(len(ids), dtype=torch.float64, device=ids.device)
        x = q_sample(self.model.schedule, clean, t, torch.randn_like(clean))
        half = len(ids) // 2
        if half:
            with torch.no_grad():
                estimate = self.model.predict(x[:half], t[:half]).x0.to(x)
            x = torch.cat([estimate, x[half:]])
            t = torch.cat([torch.zeros_like(t[:half]), t[half:]])
        return Shown(self._of_words(x, ids), t)

    def at(self, level: float, ids: Tensor) -> dict[str, Shown]:
        clean = self.model.embed(ids)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(ids.device)
        t = torch.full((len(ids),), level, dtype=torch.float64, device=ids.device)
        x = q_sample(self.model.schedule, clean, t, noise)
        estimate = self.model.predict(x, t).x0
        return {
            "x_t": Shown(self._of_words(x, ids), t),
            "x0": Shown(self._of_words(estimate, ids), torch.zeros_like(t)),
        }

    def _of_words(self, x: Tensor, ids: Tensor) -> Tensor:
        return pooled(x, ids, self.tokenizer, self.model.embeddings.detach())


class WordInputs:
    """The expected embeddings of a masked or uniform model's own estimates from noisy texts, given as noise level 0, as
    guidance shows them: there are no other latents. Texts with next to no noise are among them."""

    kinds: ClassVar[dict[str, str]] = {"x0": "of estimates"}

    def __init__(self, model: MaskedLM, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def batch(self, ids: Tensor) -> Shown:
        return self._shown(ids, torch.rand(len(ids), device=ids.device), torch.rand(ids.shape, device=ids.device))

    def at(self, level: float, ids: Tensor) -> dict[str, Shown]:
        order = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)).to(ids.device)
        return {"x0": self._shown(ids, torch.full((len(ids),), level, device=ids.device), order)}

    @torch.no_grad()
    def _shown(self, ids: Tensor, t: Tensor, order: Tensor) -> Shown:
        model, lengths = self.model, self.model.config.lengths
        places, mask = word_places(ids, self.tokenizer, lengths), attended(ids, self.tokenizer, lengths)
        if isinstance(model, UniformLM):
            noisy, canvas = model.noised(ids, places, t[:, None], order), noised(ids, places, model.mask_id)
            logits = model.seen(model.logits_at(noisy, t, attention_mask=mask), noisy, t)
        else:
            canvas = noised(ids, places & (order < t[:, None]), model.mask_id)
            logits = model.logits(canvas, attention_mask=mask)
        chances = with_certain(widened(logits), canvas, model.mask_id).softmax(-1)
        x = pooled(widened(model.soft(chances)), ids, self.tokenizer, model.embeddings)
        return Shown(x, torch.zeros_like(t))


def inputs_of(pretrained: Pretrained) -> Inputs:
    """What a classifier for this model is trained on.

    Raises:
        ModelError: the model is a checkpoint of others.
    """
    if isinstance(pretrained.model, MaskedLM):
        return WordInputs(pretrained.model.requires_grad_(False), pretrained.tokenizer)
    return LatentInputs(pretrained.latent.requires_grad_(False), pretrained.tokenizer)
