"""The seam between diffusion families: what the walk from noise to text asks of one.

A family knows its states and how one becomes the next; it knows nothing of words, controls or recipes. ``gaussian`` has
latents over word embeddings (Li et al. 2022), ``masked`` ids with a mask among them (Sahoo et al. 2024). Guidance on
logits and every exact control need token logits only, and so serve each of them.
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
"""The logits of ``Prediction.parts``."""


class Prediction:
    """What a model makes of x_t: token ``logits [B, L, V]``, None where it predicts latents, and the x_0 estimate
    ``x0 [B, L, D]``, computed when first asked for where it is a mean of word embeddings; of a guided estimate
    ``unguided [B, L, V]``, the logits before the controls moved them, where they are asked for.

    Where logits are known for some places alone, ``parts`` gives those, and all are computed when first asked for.
    """

    def __init__(
        self,
        x0: Callable[[], Tensor],
        logits: Tensor | Callable[[], Tensor] | None = None,
        unguided: Tensor | None = None,
        parts: Parts | None = None,
    ) -> None:
        self._x0, self._logits, self.unguided, self._parts = x0, logits, unguided, parts

    @cached_property
    def x0(self) -> Tensor:
        return self._x0()

    @cached_property
    def logits(self) -> Tensor | None:
        return self._logits() if callable(self._logits) else self._logits

    def parts(self, places: Tensor, rows: int) -> Iterator[Tensor]:
        """Logits at ``places [B, M]`` of each text: ``[rows, M, V]``, of so many texts after so many."""
        if self._parts is not None:
            yield from self._parts(places, rows)
            return
        assert self.logits is not None
        for some, logits in zip(places.split(rows), self.logits.split(rows), strict=True):
            yield logits[torch.arange(len(some), device=some.device)[:, None], some]

    def take(self, rows: Tensor) -> Prediction:
        """The same of the texts ``rows``."""
        logits, unguided = (
            None if part is None else part.index_select(0, rows) for part in (self.logits, self.unguided)
        )
        return Prediction(lambda: self.x0.index_select(0, rows), logits, unguided)


class Moved(NamedTuple):
    """A reverse step's draw ``x`` and, where it was drawn around a ``mean`` with a ``variance``, those.

    ``log_ratio [B]`` is log p(x_s) - log q(x_s): how much likelier than the guided model the unguided one is to draw
    it. None where that is not asked for, or not known.
    """

    x: Tensor
    mean: Tensor
    variance: Tensor
    log_ratio: Tensor | None = None


class Family(Protocol):
    """One diffusion family, with the sampler chosen. States ``x`` are ``[B, L, ...]``, times ``[B]`` in [0, 1].

    Times best lie on the CPU, wherever the states are: a family may look at them, and a GPU would keep it waiting.
    """

    def start(self, layouts: Layouts, noise: SampleNoise) -> Tensor:
        """The states at t = 1."""

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        """What the network makes of x_t; ``previous`` is its last x_0 estimate, ``mask [B, L]`` the attention mask."""

    def step(self, x: Tensor, estimate: Prediction, t: Tensor, s: Tensor, noise: SampleNoise) -> Moved:
        """x_s, for s < t, given the guided estimate."""

    def take(self, rows: Tensor) -> None:
        """Go on with the texts ``rows`` in place of those so far, as many."""

    def soft(self, probabilities: Tensor) -> Tensor:
        """Word probabilities ``[B, L, V]`` to the expected embedding ``[B, L, D]``: what a classifier reads."""
