"""Uniform diffusion over words (UDLM; Schiff et al. 2024): noise puts a random word in the place of a word.

A text is a canvas of word ids ``[B, L]``, all of them words: with probability t a word gives way to one drawn evenly
from all N words. Any word may still change until the end, so a walk can mend what it wrote. START, END, PAD and UNK are
no words and stand; the network is told the time, which no mask shows here.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from dlmctl.diffusion.absorbing import Absorbing, with_certain
from dlmctl.diffusion.family import Moved, Prediction
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.masked_base import MaskedFamily, Read
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.walks import drawn, word_weights
from dlmctl.models.numerics import widened
from dlmctl.models.transformer import TimeEmbedding

# Width of the sinusoidal time features.
TIME_CHANNELS = 64
# Times are kept this far from 0 and 1, where the weights of the bound grow without bound.
MARGIN = 1e-4


class UniformConfig(MaskedConfig):
    """As ``MaskedConfig``, and what is no word."""

    special: list[int] = Field(min_length=1, max_length=4, description="what noise never writes: START, END, UNK, PAD")

    @field_validator("special")
    @classmethod
    def _in_order(cls, special: list[int]) -> list[int]:
        return sorted(set(special))


class UniformLM(MaskedLM):
    """A uniform model that was trained here: the network of a masked one, and the time beside its embeddings.

    ``mask_id`` is the id of no word, and its embedding is not used.
    """

    family: ClassVar[MaskedFamily] = "uniform"
    config: UniformConfig

    def __init__(self, config: UniformConfig) -> None:
        super().__init__(config)
        # Within the denoiser, with whose weights it is saved.
        self.denoiser.add_module("time", TimeEmbedding(TIME_CHANNELS, config.denoiser.hidden))

    @property
    def tied_weights(self) -> int:
        """As of ``MaskedLM``; every place is scored."""
        return self.embedding_table.numel()

    def logits_at(self, canvas: Tensor, t: Tensor, **read: Unpack[Read]) -> Tensor:
        """Scores of the words ``[B, L, V]`` of the clean text, for a canvas at times ``t [B]``; -inf for no words.

        They say what the other words of the canvas make of a place. The word that stands there counts in the posterior
        that they are put into (``seen``): put there twice it would be taken for certain.
        """
        time = self.denoiser.get_submodule("time")(1000 * t.to(canvas.device))
        hidden = self.denoiser(inputs_embeds=self.embed(canvas) + time[:, None], **read)
        scores = self.denoiser.logits(hidden)[..., : self.config.vocab_size]
        return scores.masked_fill(~self.is_word(), -torch.inf)

    def seen(self, logits: Tensor, canvas: Tensor, t: Tensor, sign: int = 1) -> Tensor:
        """``logits [B, L, V]`` given the words that stand on a canvas at times ``t [B]``, too; with sign -1, no longer.

        q(z given x) is 1 - t + t / N for the word x = z and t / N for all others.
        """
        t = t.to(canvas.device, torch.float32).clamp(MARGIN, 1)[:, None, None]
        nats = sign * (self.words * (1 - t) / t).log1p().expand(*canvas.shape, 1)
        return logits.scatter_add(-1, canvas[..., None], nats.to(logits))

    def is_word(self) -> Tensor:
        """Which ids ``[V]`` are words."""
        ids = torch.arange(self.config.vocab_size, device=self.embeddings.device)
        # One by one, as a tensor of them would make a GPU wait.
        return torch.stack([ids != special for special in self.config.special]).all(0)

    @property
    def words(self) -> int:
        """How many words there are."""
        return self.config.vocab_size - len(self.config.special)

    def random_words(self, uniform: Tensor) -> Tensor:
        """Words drawn evenly, by ``uniform`` numbers in [0, 1) of any shape."""
        found = (uniform * self.words).long().clamp(max=self.words - 1)
        for special in self.config.special:
            found = found + (found >= special)
        return found

    def noised(self, ids: Tensor, places: Tensor, t: Tensor, order: Tensor) -> Tensor:
        """``ids [B, L]``, random words at those of ``places`` where ``order [B, L]``, uniform, is below ``t [B, 1]``.

        An order below t is itself even between 0 and t, and says which word it is.
        """
        return torch.where(places & (order < t), self.random_words(order / t.clamp(min=MARGIN)), ids)

    def bound_nats(self, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[Read]) -> Tensor:
        """As of ``MaskedModel``; ``share`` are the times, and ``order`` says which words stand there instead, too.

        The continuous-time bound (Schiff et al. 2024, eq. 18) with alpha = 1 - t. With q = alpha x + (1 - alpha) / N
        and q_theta the same of the estimate, z the noisy word and r = q(z) / q_theta(z), it is
        (r - 1 - log r + KL(q || q_theta)) / (alpha N q(z)) for each place, at an even time; both parts are at least 0.
        """
        t = share.clamp(MARGIN, 1 - MARGIN)[:, None]
        z = self.noised(ids, places, t, order)
        logits = self.logits_at(z, t[:, 0], **read)
        count, alpha = self.words, (1 - t).to(logits)
        spread = (1 - alpha) / count
        # Where a place is no word's there may be no finite logit; it is left out of the sum.
        logs = (alpha[..., None] * logits.softmax(-1) + spread[..., None]).log()
        of_clean, of_noisy = (logs.gather(-1, at[..., None])[..., 0] for at in (ids, z))
        likeliest = alpha + spread
        own = torch.where(z == ids, likeliest, spread).log()
        entropy = likeliest * likeliest.log() + (count - 1) * spread * spread.log()
        divergence = entropy - alpha * of_clean - spread * (logs * self.is_word()).sum(-1)
        ratio = own - of_noisy
        nats = (ratio.exp() - 1 - ratio + divergence) / (alpha * count * own.exp())
        return torch.where(places, nats, 0.0).sum(1)


def denoising_nats(
    model: UniformLM, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[Read]
) -> Tensor:
    """Cross-entropy of the words at ``places`` given a noisy text, summed over each row ``[B]``; as ``bound_nats``.

    What training minimises (Austin et al. 2021, section 3.4): the best scores are those of the bound, and no weight
    makes the few words that are noise at small times outweigh all others.
    """
    z = model.noised(ids, places, share[:, None], order)
    logits = model.seen(model.logits_at(z, share, **read), z, share)
    return F.cross_entropy(logits.transpose(1, 2), ids.masked_fill(~places, -100), reduction="none").sum(1)


class UniformWalk(Absorbing):
    """A ``Family`` whose states are words at every place; arguments as of ``Absorbing``. The last step takes the
    likeliest words, so that what is exact holds for them."""

    model: UniformLM

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        x = super().start(layouts, noise)
        self.nats = None  # what a text that changes until the end has is not known on the way
        return torch.where(x == self.model.mask_id, self.model.random_words(noise.uniform(1, x)[0]), x)

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        assert self.free is not None
        logits = widened(self.model.logits_at(x, t, attention_mask=self.attended, aligned=self.tags))
        written, mask_id = x.masked_fill(self.free, self.model.mask_id), self.model.mask_id
        logits = with_certain(self.model.seen(logits, x, t), written, mask_id)
        return Prediction(lambda: self.soft(logits.softmax(-1)), logits)

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> Moved:
        """x_s by the posterior q(x_s given x_t, x_0) with the estimate for x_0 (Schiff et al. 2024, eq. 13)."""
        assert estimate.logits is not None
        assert self.free is not None
        later, model = float(s[0]), self.model
        if later <= 0:
            new = estimate.logits.argmax(-1)
        else:
            weights = word_weights(model.seen(estimate.logits, x, t, -1), self.settings)
            before = (1 - later) * weights / weights.sum(-1, keepdim=True) + later / model.words * model.is_word()
            # From s on to t a word is noise with probability (t - s) / (1 - s).
            new = drawn(model.seen(before.log(), x, (t - s) / (1 - s)).exp(), noise.uniform(1, x)[0])
        new = torch.where(self.free, new, x)
        return Moved(new, new, torch.zeros(len(x)))

    def whole_until(self, times: Tensor, *, alone: bool) -> float:
        """That of the last step, which ends with the likeliest text."""
        return float(times[-2])
