"""What a control sees: of a batch before it is drawn, and of its latents at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import Draw
from dlmctl.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Setting:
    """What a control is told before a batch is sampled.

    Attributes:
        model, tokenizer, folder: the model, its words, and where its weights and those of its controls lie.
        draws: which sample, and which attempt at it, each row is.
        layouts: of each row its canvas, and the settled number of words or None where the model chooses.
    """

    model: DiffusionLM
    tokenizer: Tokenizer
    folder: Path
    draws: Sequence[Draw]
    layouts: Sequence[Layout]

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return len(self.draws)

    @property
    def length(self) -> int:
        """Positions of the batch: its longest canvas."""
        return max(layout.canvas for layout in self.layouts)


class ControlState:
    """The latent that an energy judges, and what the model makes of it.

    Attributes:
        x: the latent, ``[B, L, D]``; gradients flow to it.
        t: its noise level, ``[B]`` in [0, 1]; 0 where ``x`` is itself an x_0 estimate.
        x0: the x_0 estimate ``[B, L, D]``, computed when first asked for.
        word_log_probs: log-probabilities of the words ``[B, L, V]``, computed when first asked for.
        inside: ``[B, L]``, true on each row's canvas; None where all rows are as long as the batch. Elsewhere ``x`` and
            ``x0`` have no meaning, and ``word_log_probs`` is PAD for certain.
        embeddings: of the words, ``[V, D]``.
        tokenizer: words and ids.
    """

    def __init__(
        self,
        x: Tensor,
        t: Tensor,
        *,
        tokenizer: Tokenizer,
        embeddings: Tensor,
        x0: Callable[[], Tensor],
        word_log_probs: Callable[[], Tensor],
        inside: Tensor | None = None,
    ) -> None:
        self.x, self.t, self.tokenizer, self.embeddings, self.inside = x, t, tokenizer, embeddings, inside
        self._x0, self._word_log_probs = x0, word_log_probs

    @cached_property
    def x0(self) -> Tensor:
        return self._x0()

    @cached_property
    def word_log_probs(self) -> Tensor:
        return self._word_log_probs()
