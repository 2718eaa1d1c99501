"""Uniform diffusion over words (UDLM; Schiff et al. 2024): its models and its walk.

A text is a canvas of word ids ``[B, L]`` without masks. START, END, PAD and UNK do not count as words and are fixed.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from dlmctl.diffusion.absorbing import Absorbing, with_fixed_words
from dlmctl.diffusion.family import Prediction, StepResult
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.masked_base import NetworkInputs
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.uniform_noise import UniformModel
from dlmctl.diffusion.walks import drawn, word_weights
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.transformer import TimeEmbedding

# Width of the sinusoidal time features.
TIME_CHANNELS = 64


class UniformConfig(MaskedConfig):
    """As ``MaskedConfig``, with the ids of the special tokens."""

    special: list[int] = Field(min_length=1, max_length=4, description="what noise never writes: START, END, UNK, PAD")

    @field_validator("special")
    @classmethod
    def _in_order(cls, special: list[int]) -> list[int]:
        return sorted(set(special))


class UniformLM(UniformModel, MaskedLM):
    """A uniform model trained with dlmctl: the network of a masked model, with a time embedding added to its input.

    ``mask_id`` is not the id of a word, and its embedding is not used.
    """

    config: UniformConfig

    def __init__(self, config: UniformConfig) -> None:
        super().__init__(config)
        # Part of the denoiser, so that it is saved with its weights.
        self.denoiser.add_module("time", TimeEmbedding(TIME_CHANNELS, config.denoiser.hidden))

    @property
    def special(self) -> list[int]:
        return self.config.special

    @property
    def tied_weights(self) -> int:
        """As in ``MaskedLM``, but every position is scored."""
        return self.embedding_table.numel()

    def logits_at(self, canvas: Tensor, t: Tensor, **read: Unpack[NetworkInputs]) -> Tensor:
        """As ``UniformModel.logits_at``; -inf for special tokens.

        Raises:
            ValueError: a context is given; these models take none.
        """
        if read.pop("context", None) is not None:
            raise ValueError("this model takes no context")
        time = self.denoiser.get_submodule("time")(1000 * t.to(canvas.device))
        hidden = self.denoiser(inputs_embeds=self.embed(canvas) + time[:, None], **read)
        scores = self.denoiser.logits(hidden)[..., : self.config.vocab_size]
        return at_least_float32(scores).masked_fill(~self.is_word(), -torch.inf)


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

    model: UniformModel

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        x = super().start(layouts, noise)
        self.log_p = None  # unknown on the way, as a text may change until the last step
        return torch.where(x == self.model.mask_id, self.model.random_words(noise.uniform(1, x)[0]), x)

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        assert self.free is not None
        read = NetworkInputs(attention_mask=self.attention_mask(mask), aligned=self.tags, context=self.context)
        logits = self.model.logits_at(x, t, **read)
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

    def skips(self, x: Tensor, noise: SampleNoise) -> bool:
        """No step is skipped: until the last one, every word may change."""
        return False

    def finished(self, x: Tensor) -> None:
        """The last step may change all texts."""

    def joint_until(self, times: Tensor) -> float:
        """The time of the last step, which ends with the likeliest text."""
        return float(times[-2])
