"""Third-party uniform models over the tokens of any tokenizer: UDLM (Schiff et al. 2024), Duo (Sahoo et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Unpack

import torch
from torch import Tensor

from dlmctl.diffusion.masked_base import NetworkInputs, Scores
from dlmctl.diffusion.tokens import TokenLM, after_context
from dlmctl.diffusion.uniform_noise import UniformModel
from dlmctl.models.dit import NOISE_EPSILON
from dlmctl.models.numerics import at_least_float32


class TimedNetwork(Protocol):
    """The interface of a network that is told how noisy the tokens are."""

    def hidden(self, ids: Tensor, mask: Tensor | None = None, noise_level: Tensor | None = None) -> Tensor: ...


class UniformTokenLM(UniformModel, TokenLM):
    """A uniform model over tokens, with the weights of a checkpoint; arguments as for ``TokenLM``.

    Noise writes every token but MASK, special ones too, as in their training.
    """

    @property
    def special(self) -> Sequence[int]:
        return [self.mask_id] if self.mask_id < self.config.vocab_size else []

    def logits_at(self, canvas: Tensor, t: Tensor, **read: Unpack[NetworkInputs]) -> Tensor:
        """As ``UniformModel.logits_at``; -inf for MASK.

        The network has one noise level for all tokens, also for those of a prompt, which have none.
        """
        network: TimedNetwork = self.network  # type: ignore[assignment]
        ids, mask, first = after_context(canvas, read)
        t = t.to(ids.device, torch.float32)
        sigma = -torch.log(1 - t + NOISE_EPSILON * t)
        hidden = network.hidden(ids, mask, noise_level=sigma)[:, first:]
        return at_least_float32(self._scores(hidden, None)).to(canvas.device)

    def scores_of(self, canvas: Tensor, **read: Unpack[NetworkInputs]) -> Scores:
        """As ``MaskedModel.scores_of``, for masks in place of which nothing is known: noise at time 1."""
        random = torch.rand(canvas.shape, generator=torch.Generator().manual_seed(0)).to(canvas.device)
        noisy = torch.where(canvas == self.mask_id, self.random_words(random), canvas)
        scores = self.logits_at(noisy, torch.ones(len(canvas)), **read)
        return lambda positions: scores if positions is None else scores.flatten(0, 1)[positions]
