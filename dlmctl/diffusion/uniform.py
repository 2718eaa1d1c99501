"""Uniform diffusion over words (UDLM; Schiff et al. 2024): noise puts a random word in the place of a word.

A text is a canvas of word ids ``[B, L]``, all of them words: with probability t a word gives way to one drawn evenly
from all N words. Any word may still change until the end, so a walk can mend what it wrote. START, END, PAD and UNK are
no words and stand; the network is told the time, which no mask shows here.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from dlmctl.diffusion.absorbing import Absorbing
from dlmctl.diffusion.family import Moved, Prediction
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM, Nats, counted_nats
from dlmctl.diffusion.masked_base import MaskedFamily, MaskedModel
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

    special: list[int] = Field(
        default_factory=list, max_length=100, description="ids that noise never writes: START, END, UNK, PAD"
    )

    @field_validator("special")
    @classmethod
    def _sorted(cls, special: list[int]) -> list[int]:
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
        return self.denoiser.model.embed_tokens.weight.numel()

    def logits_at(
        self, canvas: Tensor, t: Tensor, *, attention_mask: Tensor | None = None, aligned: Tensor | None = None
    ) -> Tensor:
        """Scores of the words ``[B, L, V]`` of the clean text, for a canvas at times ``t [B]``; -inf for no words.

        They say what the other words of the canvas make of a place. The word that stands there counts in the posterior
        that they are put into (``seen``): put there twice it would be taken for certain.
        """
        time = self.denoiser.get_submodule("time")(1000 * t.to(canvas.device))
        embedded = self.embed(canvas) + time[:, None]
        hidden = self.denoiser(inputs_embeds=embedded, attention_mask=attention_mask, aligned=aligned)
        scores = self.denoiser.logits(hidden)[..., : self.config.vocab_size]
        return scores.masked_fill(~self.is_word(), -torch.inf)

    def seen(self, canvas: Tensor, t: Tensor) -> Tensor:
        """How much likelier each word of a canvas ``[B, L]`` at times ``t [B]`` is by standing there, in nats.

        q(z given x) is 1 - t + t / N for the word x = z and t / N for all others.
        """
        t = t.to(canvas.device, torch.float32).clamp(MARGIN, 1)[:, None]
        return (self.words * (1 - t) / t).log1p().expand(canvas.shape)

    def is_word(self) -> Tensor:
        """Which ids ``[V]`` are words."""
        ids = torch.arange(self.config.vocab_size, device=self.embeddings.device)
        for special in self.config.special:  # one by one, as a tensor of them would make a GPU wait
            ids = ids.masked_fill(ids == special, -1)
        return ids >= 0

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


def noised_words(model: UniformLM, ids: Tensor, places: Tensor, t: Tensor, order: Tensor) -> Tensor:
    """``ids [B, L]`` with random words at those of ``places`` where ``order [B, L]``, uniform, is below ``t [B, 1]``.

    An order below t is itself even between 0 and t, and says which word it is.
    """
    return torch.where(places & (order < t), model.random_words(order / t.clamp(min=MARGIN)), ids)


def uniform_nats(
    model: UniformLM,
    ids: Tensor,
    places: Tensor,
    share: Tensor,
    order: Tensor,
    *,
    attention_mask: Tensor | None = None,
    aligned: Tensor | None = None,
) -> Tensor:
    """One draw of the bound on -log p(words at ``places`` given the rest) of each row ``[B]``, in nats.

    The continuous-time bound (Schiff et al. 2024, eq. 18) with alpha = 1 - t. With q = alpha x + (1 - alpha) / N and
    q_theta the same of the estimate, z the noisy word and r = q(z) / q_theta(z), it is
    (r - 1 - log r + KL(q || q_theta)) / (alpha N q(z)) for each place, at an even time; both parts are at least 0.

    Args:
        ids, places: ``[B, L]``; share: ``[B]``, uniform in [0, 1), the times; order: ``[B, L]``, uniform: which words
            are noise, and which words stand there instead.
    """
    is_word = model.is_word()
    t = share.clamp(MARGIN, 1 - MARGIN)[:, None]
    z = noised_words(model, ids, places, t, order)
    logits = model.logits_at(z, t[:, 0], attention_mask=attention_mask, aligned=aligned)
    count, alpha = model.words, (1 - t).to(logits)
    spread = (1 - alpha) / count
    # Where a place is no word's there may be no finite logit; it is left out of the sum.
    probabilities = alpha[..., None] * logits.softmax(-1) + spread[..., None]
    logs = probabilities.log()
    of_clean, of_noisy = (logs.gather(-1, at[..., None])[..., 0] for at in (ids, z))
    likeliest = alpha + spread
    own = torch.where(z == ids, likeliest, spread.expand_as(of_noisy)).log()
    entropy = likeliest * likeliest.log() + (count - 1) * spread * spread.log()
    divergence = entropy - alpha * of_clean - spread * (logs * is_word).sum(-1)
    ratio = own - of_noisy
    nats = (ratio.exp() - 1 - ratio + divergence) / (alpha * count * own.exp())
    return torch.where(places, nats, 0.0).sum(1)


def nats_of(model: MaskedModel) -> Nats:
    """The bound of a model."""
    return partial(uniform_nats, model) if isinstance(model, UniformLM) else partial(counted_nats, model)


def denoising_nats(
    model: UniformLM,
    ids: Tensor,
    places: Tensor,
    share: Tensor,
    order: Tensor,
    *,
    attention_mask: Tensor | None = None,
    aligned: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the words at ``places`` given a noisy text, summed over each row ``[B]``; as ``uniform_nats``.

    What training minimises (Austin et al. 2021, section 3.4): the best scores are those of the bound, and no weight
    makes the few words that are noise at small times outweigh all others.
    """
    z = noised_words(model, ids, places, share[:, None], order)
    logits = model.logits_at(z, share, attention_mask=attention_mask, aligned=aligned)
    logits = logits.scatter_add(-1, z[..., None], model.seen(z, share)[..., None].to(logits))
    nats = F.cross_entropy(logits.transpose(1, 2), ids.masked_fill(~places, -100), reduction="none")
    return nats.sum(1)


class UniformWalk(Absorbing):
    """A ``Family`` whose states are words at every place; arguments as of ``Absorbing``. The last step takes the
    likeliest words, so that what is exact holds for them."""

    model: UniformLM

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        x = super().start(layouts, noise)
        self.nats = None  # what a text that changes until the end has is not known on the way
        return torch.where(x == self.model.mask_id, self.model.random_words(noise.uniform(1, x)[0]), x)

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        logits = widened(self.model.logits_at(x, t, attention_mask=self.attended, aligned=self.tags))
        logits = logits.scatter_add(-1, x[..., None], self.model.seen(x, t)[..., None].to(logits))
        assert self.free is not None
        certain = torch.full_like(logits, -torch.inf).scatter(-1, x[..., None], 0.0)
        logits = torch.where(self.free[..., None], logits, certain)
        return Prediction(lambda: self.soft(logits.softmax(-1)), logits)

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> Moved:
        """x_s by the posterior q(x_s given x_t, x_0) with the estimate for x_0 (Schiff et al. 2024, eq. 13)."""
        assert estimate.logits is not None
        assert self.free is not None
        later = float(s[0])
        if later <= 0:
            new = estimate.logits.argmax(-1)
        else:
            is_word, count = self.model.is_word(), self.model.words
            kept = (1 - float(t[0])) / (1 - later)
            unseen = self.model.seen(x, t)[..., None].to(estimate.logits).neg()
            weights = word_weights(estimate.logits.scatter_add(-1, x[..., None], unseen), self.settings)
            before = (1 - later) * weights / weights.sum(-1, keepdim=True) + later / count * is_word
            stays = torch.full_like(before, (1 - kept) / count)
            chances = before * stays.scatter_add(-1, x[..., None], torch.full_like(stays[..., :1], kept))
            new = drawn(chances, noise.uniform(1, x)[0])
        new = torch.where(self.free, new, x)
        return Moved(new, new, torch.zeros(len(x)))

    def whole_until(self, times: Tensor, *, alone: bool) -> float:
        """That of the last step, which ends with the likeliest text."""
        return float(times[-2])

    def take(self, rows: Tensor) -> None:
        """Nothing is kept of a text but its state."""
