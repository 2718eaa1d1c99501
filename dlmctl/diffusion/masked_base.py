"""What a walk, a control and a bound ask of a masked model, whoever trained it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.diffusion.masking import mask_by_count
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


class Read(TypedDict, total=False):
    """What a network reads beside a canvas ``[B, L]``.

    Attributes:
        attention_mask: bool ``[B, L]``, true for the positions that are attended to; all if not given.
        aligned: the label of each position ``[B, L]``, of models that take them.
        context: a prompt before each row, of models that take one.
        hints: what is added to the input of each block ``[layers, B, L, H]``, of models that take such.
    """

    attention_mask: Tensor | None
    aligned: Tensor | None
    context: Context | None
    hints: Tensor | None


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


class Predictor(Protocol):
    """What ``masked_nats`` asks of a model; see ``MaskedModel``."""

    @property
    def mask_id(self) -> int: ...

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[Read]) -> Tensor: ...


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

    def logits(self, canvas: Tensor, positions: Tensor | None = None, **read: Unpack[Read]) -> Tensor:
        """Scores of the tokens ``[B, L, V]`` behind the masks of ``canvas [B, L]``, at least float32.

        Args:
            positions: numbers of the positions to score, of any shape, counted through the batch (row x L + place);
                the result is ``[*their shape, V]``.
        """
        return widened(self.scores_of(canvas, **read)(positions))

    def scores_of(self, canvas: Tensor, **read: Unpack[Read]) -> Scores:
        """Run the network on ``canvas [B, L]``; over a large vocabulary it pays to ask for few of the scores."""
        raise NotImplementedError

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[Read]) -> Tensor:
        """Cross-entropy in nats of the tokens ``targets [N]`` at ``positions [N]`` of ``canvas [B, L]``: ``[N]``."""
        return F.cross_entropy(self.logits(canvas, positions, **read), targets, reduction="none")

    def bound_nats(self, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[Read]) -> Tensor:
        """One draw of a bound on -log p(words at ``places`` given the rest) of each row ``[B]``, in nats.

        Of masked models that of ``mask_by_count``.

        Args:
            ids, places: ``[B, L]``; share: ``[B]``, uniform in [0, 1), how much is noise; order: ``[B, L]``, uniform:
                where it is.
        """
        return masked_nats(self, ids, *mask_by_count(places, share, order), **read)


def masked_nats(
    model: Predictor, ids: Tensor, masked: Tensor, weights: Tensor, most: int | None = None, **read: Unpack[Read]
) -> Tensor:
    """Weighted cross-entropy of the masked words of each row ``[B]``, in nats.

    Args:
        ids: ``[B, L]``; masked: ``[B, L]``, true where MASK stands instead; weights: ``[B]``.
        most: at least as many places as are masked in all; with it all shapes are known beforehand, as a compiled
            function likes, and a GPU need not wait. Counted if not given.
    """
    flat = masked.flatten()
    found = flat.nonzero() if most is None else torch.nonzero_static(flat, size=most, fill_value=-1)
    at = found.flatten()
    real, at = at >= 0, at.clamp(min=0)
    nats = model.nats(noised(ids, masked, model.mask_id), at, ids.flatten().index_select(0, at), **read)
    rows = at // ids.shape[1]
    weighted = nats * torch.where(real, weights.index_select(0, rows), 0.0).to(nats)
    return torch.zeros(len(ids), dtype=nats.dtype, device=nats.device).index_add(0, rows, weighted)


def noised(ids: Tensor, masked: Tensor, mask_id: int) -> Tensor:
    """``ids [B, L]`` with MASK at the places ``masked [B, L]``: a draw from q(x_t given x_0)."""
    return ids.masked_fill(masked, mask_id)
