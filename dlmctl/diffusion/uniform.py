"""Uniform diffusion over words (UDLM; Schiff et al. 2024): noise replaces words by random words.

A text is a canvas of word ids ``[B, L]`` without masks: with probability t a word is replaced by one drawn uniformly
from all N words. Any word may change until the last step, so a walk can correct itself. START, END, PAD and UNK do not
count as words and are fixed. The network receives the time, since there are no masks to imply it.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from dlmctl.diffusion.absorbing import Absorbing, with_fixed_words
from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.masked_base import MaskedFamily, NetworkInputs
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.walks import drawn, word_weights
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.transformer import TimeEmbedding

# Width of the sinusoidal time features.
TIME_CHANNELS = 64
# Times are kept this far from 0 and 1, where the weights of the bound diverge.
MARGIN = 1e-4


class UniformConfig(MaskedConfig):
    """As ``MaskedConfig``, with the ids of the special tokens."""

    special: list[int] = Field(min_length=1, max_length=4, description="what noise never writes: START, END, UNK, PAD")

    @field_validator("special")
    @classmethod
    def _in_order(cls, special: list[int]) -> list[int]:
        return sorted(set(special))


class UniformLM(MaskedLM):
    """A uniform model trained with dlmctl: the network of a masked model, with a time embedding added to its input.

    ``mask_id`` is not the id of a word, and its embedding is not used.
    """

    family: ClassVar[MaskedFamily] = "uniform"
    config: UniformConfig

    def __init__(self, config: UniformConfig) -> None:
        super().__init__(config)
        # Part of the denoiser, so that it is saved with its weights.
        self.denoiser.add_module("time", TimeEmbedding(TIME_CHANNELS, config.denoiser.hidden))

    @property
    def tied_weights(self) -> int:
        """As in ``MaskedLM``, but every position is scored."""
        return self.embedding_table.numel()

    def logits_at(self, canvas: Tensor, t: Tensor, **read: Unpack[NetworkInputs]) -> Tensor:
        """Scores ``[B, L, V]`` of the clean text's words, for a canvas at times ``t [B]``; -inf for special tokens.

        They are the prediction for a position from the other words of the canvas. The word at the position itself
        enters through the posterior (``seen``): counted twice, it would be taken as certain.
        """
        time = self.denoiser.get_submodule("time")(1000 * t.to(canvas.device))
        hidden = self.denoiser(inputs_embeds=self.embed(canvas) + time[:, None], **read)
        scores = self.denoiser.logits(hidden)[..., : self.config.vocab_size]
        return scores.masked_fill(~self.is_word(), -torch.inf)

    def seen(self, logits: Tensor, canvas: Tensor, t: Tensor, sign: int = 1) -> Tensor:
        """Condition ``logits [B, L, V]`` on the words of a canvas at times ``t [B]``; sign -1 undoes this.

        The likelihood q(z | x) is 1 - t + t / N for the word x = z and t / N for all others.
        """
        t = t.to(canvas.device, torch.float32).clamp(MARGIN, 1)[:, None, None]
        log_likelihood_ratio = sign * (self.words * (1 - t) / t).log1p().expand(*canvas.shape, 1)
        return logits.scatter_add(-1, canvas[..., None], log_likelihood_ratio.to(logits))

    def is_word(self) -> Tensor:
        """Whether each id ``[V]`` is a word, not a special token."""
        ids = torch.arange(self.config.vocab_size, device=self.embeddings.device)
        # One by one: copying the special ids to a GPU would synchronise.
        return torch.stack([ids != special for special in self.config.special]).all(0)

    @property
    def words(self) -> int:
        """The number of words N."""
        return self.config.vocab_size - len(self.config.special)

    def random_words(self, uniform: Tensor) -> Tensor:
        """Words drawn uniformly, from ``uniform`` numbers in [0, 1) of any shape."""
        ids = (uniform * self.words).long().clamp(max=self.words - 1)
        for special in self.config.special:
            ids = ids + (ids >= special)
        return ids

    def noised(self, ids: Tensor, places: Tensor, t: Tensor, order: Tensor) -> Tensor:
        """``ids [B, L]`` with random words at those ``places`` where ``order [B, L]``, uniform, is below ``t [B, 1]``.

        An ``order`` below t is uniform in [0, t), so it also selects the word.
        """
        return torch.where(places & (order < t), self.random_words(order / t.clamp(min=MARGIN)), ids)

    def bound_nats(
        self, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[NetworkInputs]
    ) -> Tensor:
        """As in ``MaskedModel``; ``share`` holds the times, and ``order`` also selects the random words.

        The continuous-time bound (Schiff et al. 2024, eq. 18) with alpha = 1 - t. With q = alpha x + (1 - alpha) / N,
        q_theta the same for the estimate of x, z the noisy word and r = q(z) / q_theta(z), each position adds
        (r - 1 - log r + KL(q || q_theta)) / (alpha N q(z)), at a uniform time. Both r - 1 - log r and the KL are >= 0.
        """
        t = share.clamp(MARGIN, 1 - MARGIN)[:, None]
        z = self.noised(ids, places, t, order)
        logits = self.logits_at(z, t[:, 0], **read)
        count, alpha = self.words, (1 - t).to(logits)
        q_other = (1 - alpha) / count
        q_clean = alpha + q_other
        # At special tokens there may be no finite logit; they are excluded from the sum at the end.
        log_q_theta = (alpha[..., None] * logits.softmax(-1) + q_other[..., None]).log()
        log_q_theta_clean, log_q_theta_z = (log_q_theta.gather(-1, words[..., None])[..., 0] for words in (ids, z))
        log_q_z = torch.where(z == ids, q_clean, q_other).log()
        negative_entropy = q_clean * q_clean.log() + (count - 1) * q_other * q_other.log()
        kl = negative_entropy - alpha * log_q_theta_clean - q_other * (log_q_theta * self.is_word()).sum(-1)
        log_r = log_q_z - log_q_theta_z
        nats = (log_r.exp() - 1 - log_r + kl) / (alpha * count * log_q_z.exp())
        return torch.where(places, nats, 0.0).sum(1)


def denoising_nats(
    model: UniformLM, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[NetworkInputs]
) -> Tensor:
    """Cross-entropy of the words at ``places`` given a noisy text, summed over each row: ``[B]``.

    The training objective (Austin et al. 2021, section 3.4). It has the same optimum as the bound, but no weights with
    which the few noisy words at small times would outweigh all others. Arguments as for ``bound_nats``.
    """
    z = model.noised(ids, places, share[:, None], order)
    logits = model.seen(model.logits_at(z, share, **read), z, share)
    return F.cross_entropy(logits.transpose(1, 2), ids.masked_fill(~places, -100), reduction="none").sum(1)


class UniformWalk(Absorbing):
    """A ``Family`` whose states have a word at every open position; arguments as for ``Absorbing``.

    The last step takes the likeliest words, so that exact controls hold for the final text.
    """

    model: UniformLM

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        x = super().start(layouts, noise)
        self.log_p = None  # unknown on the way, as a text may change until the last step
        return torch.where(x == self.model.mask_id, self.model.random_words(noise.uniform(1, x)[0]), x)

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        assert self.free is not None
        logits = at_least_float32(self.model.logits_at(x, t, attention_mask=self.attended, aligned=self.tags))
        fixed_only, mask_id = x.masked_fill(self.free, self.model.mask_id), self.model.mask_id
        logits = with_fixed_words(self.model.seen(logits, x, t), fixed_only, mask_id)
        return Prediction(lambda: self.soft(logits.softmax(-1)), logits)

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> StepResult:
        """Sample x_s from the posterior q(x_s | x_t, x_0), with the estimate for x_0 (Schiff et al. 2024, eq. 13)."""
        assert estimate.logits is not None
        assert self.free is not None
        next_t, model = float(s[0]), self.model
        if next_t <= 0:
            new = estimate.logits.argmax(-1)
        else:
            weights = word_weights(model.seen(estimate.logits, x, t, -1), self.settings)
            prior = (1 - next_t) * weights / weights.sum(-1, keepdim=True) + next_t / model.words * model.is_word()
            # Between s and t a word is replaced with probability (t - s) / (1 - s).
            new = drawn(model.seen(prior.log(), x, (t - s) / (1 - s)).exp(), noise.uniform(1, x)[0])
        new = torch.where(self.free, new, x)
        return StepResult(new, new, torch.zeros(len(x)))

    def joint_until(self, times: Tensor, *, alone: bool) -> float:
        """The time of the last step, which ends with the likeliest text."""
        return float(times[-2])
