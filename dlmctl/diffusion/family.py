"""The interface between the sampling loop and a diffusion family.

A family defines the states and the reverse step between them; it knows nothing of words, controls or recipes. The
states of ``gaussian`` are latents over word embeddings (Li et al. 2022), those of ``masked`` token ids, MASK included
(Sahoo et al. 2024). Guidance on logits and every exact control need only token logits, so they work for every family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.noise import SampleNoise

Parts = Callable[[Tensor, int], Iterator[Tensor]]
"""Computes the logits for ``Prediction.parts``."""


class Prediction:
    """A model's prediction from x_t.

    Attributes:
        x0: the x_0 estimate ``[B, L, D]``, computed on first access.
        logits: token logits ``[B, L, V]``; None for a model that predicts latents. If passed as a function, they are
            computed on first access.
        unguided: the logits ``[B, L, V]`` of a guided prediction before guidance, where they were requested.
        unconstrained: those after guidance and before exact constraints, where they were requested.
    """

    def __init__(
        self,
        x0: Callable[[], Tensor],
        logits: Tensor | Callable[[], Tensor] | None = None,
        unguided: Tensor | None = None,
        parts: Parts | None = None,
        unconstrained: Tensor | None = None,
    ) -> None:
        self._x0, self._logits, self.unguided, self._parts = x0, logits, unguided, parts
        self.unconstrained = unconstrained

    @cached_property
    def x0(self) -> Tensor:
        return self._x0()

    @cached_property
    def logits(self) -> Tensor | None:
        return self._logits() if callable(self._logits) else self._logits

    def parts(self, places: Tensor, rows: int) -> Iterator[Tensor]:
        """Yield the logits at ``places [B, M]``, for ``rows`` texts at a time: ``[rows, M, V]``.

        With a ``parts`` function the logits at other positions need not be computed.
        """
        if self._parts is not None:
            yield from self._parts(places, rows)
            return
        assert self.logits is not None
        for chunk, logits in zip(places.split(rows), self.logits.split(rows), strict=True):
            yield logits[torch.arange(len(chunk), device=chunk.device)[:, None], chunk]

    def take(self, rows: Tensor) -> Prediction:
        """The prediction for the texts ``rows``."""
        logits, unguided, unconstrained = (
            None if scores is None else scores.index_select(0, rows)
            for scores in (self.logits, self.unguided, self.unconstrained)
        )
        return Prediction(lambda: self.x0.index_select(0, rows), logits, unguided, unconstrained=unconstrained)


class StepResult(NamedTuple):
    """The result of a reverse step.

    Attributes:
        x: the sampled x_s.
        mean, variance: of the Gaussian that x_s was drawn from; for discrete states x itself and zeros.
        log_ratio: log p(x_s) - log q(x_s) ``[B]``, with p the unguided and q the guided model; None where it was not
            requested or is not known.
    """

    x: Tensor
    mean: Tensor
    variance: Tensor
    log_ratio: Tensor | None = None


class Family(Protocol):
    """A diffusion family with its sampler. States ``x`` are ``[B, L, ...]``, times ``[B]`` in [0, 1].

    Times are best kept on the CPU, wherever the states are: a family may read their values, which on a GPU forces a
    synchronisation.
    """

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        """Sample the states at t = 1."""

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        """The network's prediction from x_t.

        Args:
            previous: the x_0 estimate of the step before.
            mask: the attention mask ``[B, L]``.
        """

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> StepResult:
        """Sample x_s, for s < t, given the guided estimate."""

    def skips(self, x: Tensor, noise: SampleNoise) -> bool:
        """Whether the next step would change no text; it then counts as taken. May wait for the device."""

    def finished(self, x: Tensor) -> Tensor | None:
        """Which texts ``[B]`` no further step will change; None if the last step may change all. Does not wait."""

    def take(self, rows: Tensor) -> None:
        """Continue with the texts ``rows`` of the batch, as many as before."""

    def soft(self, probabilities: Tensor) -> Tensor:
        """Expected embeddings ``[B, L, D]`` of word probabilities ``[B, L, V]``: the input of a classifier."""
