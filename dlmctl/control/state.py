"""What a control sees: the batch before it is drawn, and the unfinished texts at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import BaseModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dlmctl.diffusion.layout import Layout
    from dlmctl.diffusion.masked_base import MaskedModel
    from dlmctl.diffusion.model import DiffusionLM
    from dlmctl.diffusion.noise import Draw
    from dlmctl.text.tokenizer import Tokenizer

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True)
class BatchContext(Generic[P]):
    """The texts of a batch, before the first step.

    Attributes:
        model, vocabulary, folder: the model, its words, and the folder of its weights and those of its controls.
        draws: the sample that each row belongs to, and which attempt at it the row is.
        layouts: the positions of each row, and its number of words, None if the model chooses it.
        params: the control's parameters for each row.
        least_length: for a part of a batch, the length of the whole batch.
        unwanted: whether the control is negated, so that a word that the model lacks is not an error.
    """

    model: DiffusionLM | MaskedModel
    vocabulary: Tokenizer
    folder: Path
    draws: Sequence[Draw]
    layouts: Sequence[Layout]
    params: Sequence[P] = ()
    least_length: int = 0
    unwanted: bool = False

    def __len__(self) -> int:
        """Rows of the batch."""
        return len(self.draws)

    @cached_property
    def words(self) -> list[str]:
        """The word of each id of the vocabulary; empty for START, END and PAD."""
        return ["".join(self.vocabulary.words([index])) for index in range(len(self.vocabulary))]

    @property
    def length(self) -> int:
        """Positions of the batch: as many as its longest text has."""
        return max(self.least_length, *(layout.positions for layout in self.layouts))

    @property
    def reads(self) -> Sequence[str]:
        """The word labels, such as parts of speech, that the model itself reads; empty for most models."""
        return getattr(self.model.config, "tags", ())

    @cached_property
    def device(self) -> torch.device:
        """Device of the tensors of the batch."""
        return self.model.embeddings.device


class ControlState:
    """The input of an energy: the latent, and what the model predicts from it.

    Attributes:
        x: the latent, ``[B, L, D]``; gradients flow to it.
        t: its noise level, ``[B]`` in [0, 1]; 0 where ``x`` is itself an x_0 estimate.
        x0: the x_0 estimate ``[B, L, D]``, computed on first access.
        word_log_probs: log-probabilities of the words ``[B, L, V]``, computed on first access.
        mask: the attention mask ``[B, L]``, true on each row's own positions; None if all rows are as long as the
            batch. Where it is false, ``x`` and ``x0`` have no meaning, and ``word_log_probs`` puts all probability on
            PAD.
        embeddings: of the words, ``[V, D]``.
        vocabulary: words and ids.
    """

    def __init__(
        self,
        x: Tensor,
        t: Tensor,
        *,
        vocabulary: Tokenizer,
        embeddings: Tensor,
        x0: Callable[[], Tensor],
        word_log_probs: Callable[[], Tensor],
        mask: Tensor | None = None,
    ) -> None:
        self.x, self.t, self.vocabulary, self.embeddings, self.mask = x, t, vocabulary, embeddings, mask
        self._x0, self._word_log_probs = x0, word_log_probs

    def part(self, rows: Tensor) -> ControlState:
        """The state of the given rows ``[R]``."""
        return ControlState(
            self.x[rows],
            self.t[rows],
            vocabulary=self.vocabulary,
            embeddings=self.embeddings,
            x0=lambda: self.x0[rows],
            word_log_probs=lambda: self.word_log_probs[rows],
            mask=None if self.mask is None else self.mask[rows],
        )

    @cached_property
    def x0(self) -> Tensor:
        return self._x0()

    @cached_property
    def word_log_probs(self) -> Tensor:
        return self._word_log_probs()
