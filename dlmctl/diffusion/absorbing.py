"""The masked family: word ids with MASK among them, which becomes words (Sahoo et al. 2024; Nie et al. 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.diffusion.family import Moved, Prediction
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.diffusion.masked import attended as attention_mask
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.walks import StepNoise, Stride, Walk, WalkSettings, committed_log_ratio, committed_nats
from dlmctl.models.numerics import widened
from dlmctl.text.tokenizer import Tokenizer


class Absorbing:
    """A ``Family`` whose states are word ids ``[B, L]``; START, END and PAD stand, and MASK where words will be.

    Args:
        walk: the sampler.
        steps: how many there will be.
        tags: a label for each position ``[B, L]``, 0 where none is given; for models that take them.

    Attributes:
        nats: -log p of the words so far ``[B]``, each when it was written.
    """

    def __init__(
        self,
        model: MaskedLM,
        vocabulary: Tokenizer,
        walk: Walk,
        settings: WalkSettings,
        steps: int,
        tags: Tensor | None = None,
    ) -> None:
        self.model, self.vocabulary, self.walk, self.settings = model, vocabulary, walk, settings
        self.left, self.tags = steps, tags
        self.nats: Tensor | None = None
        self.free: Tensor | None = None
        self.attended: Tensor | None = None

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        vocabulary, device = self.vocabulary, layouts.words.device
        place = torch.arange(layouts.length, device=device)
        words = layouts.words[:, None]
        self.free = (place > 0) & (place <= words)
        self.nats = torch.zeros(len(words), device=device)
        x = torch.full(self.free.shape, vocabulary.pad_id, device=device)
        x = x.masked_fill(self.free, self.model.mask_id).masked_fill(place == 0, vocabulary.start_id)
        x = x.masked_fill(place == words + 1, vocabulary.end_id)
        attended = attention_mask(x, vocabulary, self.model.config.lengths)
        # Attention is faster without a mask.
        self.attended = None if attended is None or bool(attended.all()) else attended
        return x

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        """Logits with the words that stand for certain (Sahoo et al. 2024, section 3.2.3)."""
        mask = self.attended if self.model.hides_padding else mask
        logits = widened(self.model.logits(x, attention_mask=mask, aligned=self.tags))
        stands = (x != self.model.mask_id)[..., None]
        words = x[..., None].clamp(max=logits.shape[-1] - 1)
        certain = torch.where(stands, 0.0, logits.gather(-1, words))
        logits = logits.masked_fill(stands, -torch.inf).scatter(-1, words, certain)
        return Prediction(lambda: self.soft(logits.softmax(-1)), logits)

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> Moved:
        assert estimate.logits is not None
        assert self.free is not None
        assert self.nats is not None
        uniform = noise.uniform(2, x)
        stride = Stride(float(t[0]), float(s[0]), self.left)
        new = self.walk(x, estimate.logits, self.free, stride, StepNoise(uniform[0], uniform[1]), self.settings)
        most = x.shape[1] if self.settings.remask else -(-x.shape[1] // self.left)
        self.nats = self.nats + committed_nats(x, new, estimate.logits, self.model.mask_id, most)
        self.left -= 1
        ratio = None
        if estimate.unguided is not None:
            ratio = committed_log_ratio(x, new, estimate.unguided, estimate.logits, self.settings, most)
        return Moved(new, new, torch.zeros(len(x)), ratio)

    def take(self, rows: Tensor) -> None:
        assert self.nats is not None
        self.nats = self.nats.index_select(0, rows)

    def soft(self, probabilities: Tensor) -> Tensor:
        return self.model.soft(probabilities)
