"""What a walk, a control and a bound ask of a masked model, whoever trained it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.models.numerics import widened

# By their names the presets and the ways to draw are found.
MaskedFamily = Literal["masked", "tokens", "canvas", "uniform"]

Scores = Callable[[Tensor | None], Tensor]
"""Scores of the tokens at positions of a canvas that the network has read, in the precision of its products; positions
as of ``MaskedModel.logits``."""


class Context(NamedTuple):
    """The tokens of a prompt before each row of a batch, at the right end of ``ids [B, P]``.

    The last of them takes the place of START. ``mask [B, P]`` is true where they are, false on what fills up.
    """

    ids: Tensor
    mask: Tensor


class TextSettings(Protocol):
    """What a configuration says of the texts of a masked model."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def embed_dim(self) -> int: ...

    @property
    def sentence_lengths(self) -> Sequence[int]: ...

    @property
    def lengths(self) -> Literal["data", "model"]: ...

    @property
    def tags(self) -> Sequence[str]: ...


class MaskedModel(nn.Module):
    """A network that predicts the tokens behind the masks of a canvas, and the vocabulary it speaks."""

    family: ClassVar[MaskedFamily]
    # Texts of different lengths may share a batch.
    takes_mask = True
    # Whether the network is told how many words a text has.
    counts_words = False
    config: TextSettings

    @property
    def mask_id(self) -> int:
        """The id of MASK, which is never predicted."""
        raise NotImplementedError

    @property
    def hides_padding(self) -> bool:
        """Whether PAD behind a text is hidden from the network, as it was in training."""
        return False

    @property
    def embeddings(self) -> Tensor:
        """The embedding of every token ``[V, H]`` that a text can have."""
        raise NotImplementedError

    @property
    def embedding_table(self) -> Tensor:
        """The embeddings as they are saved, with MASK where it is a row of its own."""
        return self.embeddings

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of ids of any shape, MASK among them: ``[..., H]``."""
        raise NotImplementedError

    def soft(self, probabilities: Tensor) -> Tensor:
        """Expected embeddings ``[..., H]`` of token probabilities ``[..., V]``."""
        return probabilities.to(self.embeddings.dtype) @ self.embeddings

    def logits(
        self,
        canvas: Tensor,
        positions: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        aligned: Tensor | None = None,
        context: Context | None = None,
        hints: Tensor | None = None,
    ) -> Tensor:
        """Scores of the tokens ``[B, L, V]`` behind the masks of ``canvas [B, L]``, at least float32.

        Args:
            positions: numbers of the positions to score, of any shape, counted through the batch (row x L + place);
                the result is ``[*their shape, V]``.
            others: as of ``scores_of``.
        """
        scores = self.scores_of(canvas, attention_mask=attention_mask, aligned=aligned, context=context, hints=hints)
        return widened(scores(positions))

    def scores_of(
        self,
        canvas: Tensor,
        *,
        attention_mask: Tensor | None = None,
        aligned: Tensor | None = None,
        context: Context | None = None,
        hints: Tensor | None = None,
    ) -> Scores:
        """Run the network on ``canvas [B, L]``; over a large vocabulary it pays to ask only for scores that are needed.

        Args:
            attention_mask: bool ``[B, L]``, true for the positions that are attended to; all if not given.
            aligned: the label of each position ``[B, L]``, of models that take them.
            context: a prompt before each row, of models that take one.
            hints: what is added to the input of each block ``[layers, B, L, H]``, of models that take such.
        """
        raise NotImplementedError

    def nats(
        self,
        canvas: Tensor,
        positions: Tensor,
        targets: Tensor,
        *,
        attention_mask: Tensor | None = None,
        aligned: Tensor | None = None,
        hints: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy in nats of the tokens ``targets [N]`` at ``positions [N]`` of ``canvas [B, L]``: ``[N]``.

        Arguments as of ``logits``.
        """
        logits = self.logits(canvas, positions, attention_mask=attention_mask, aligned=aligned, hints=hints)
        return F.cross_entropy(logits, targets, reduction="none")
