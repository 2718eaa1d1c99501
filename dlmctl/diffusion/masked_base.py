"""The interface of masked models, trained here or elsewhere, for samplers, controls and bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.diffusion.masking import mask_by_count
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.prefix import Prefix

# Presets and drawing functions are looked up by these names.
MaskedFamily = Literal["masked", "tokens", "canvas", "uniform"]

Scores = Callable[[Tensor | None], Tensor]
"""Computes the token scores at given positions of a canvas that the network has already read, in the precision of its
matrix products; positions as in ``MaskedModel.logits``, None for all."""


class Context(NamedTuple):
    """The prompt tokens before each row of a batch, right-aligned in ``ids [B, P]``.

    The last one replaces START. ``mask [B, P]`` is true on prompt tokens and false on padding.
    """

    ids: Tensor
    mask: Tensor


class Window(NamedTuple):
    """The part of a canvas ``[B, L]`` that a step needs, for models that attend by blocks.

    Attributes:
        first: the places before it are in blocks that no longer change; below 0 for places of the prompt.
        end: from it on, nothing is read.
        prefix: what is kept of the former.
    """

    first: int
    end: int
    prefix: Prefix


class NetworkInputs(TypedDict, total=False):
    """Inputs of a network in addition to the canvas ``[B, L]``.

    Attributes:
        attention_mask: bool ``[B, L]``, true for the positions that are attended to; all if not given.
        aligned: the label of each position ``[B, L]``, for models that take labels.
        context: a prompt before each row, for models that take one.
        hints: added to the input of each block, ``[layers, B, L, H]``, for models that take them.
        window: the places that are needed, for models that attend by blocks; scores of others are meaningless.
    """

    attention_mask: Tensor | None
    aligned: Tensor | None
    context: Context | None
    hints: Tensor | None
    window: Window


class TextSettings(Protocol):
    """The part of a masked model's configuration that describes its texts."""

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
    """A model that ``masked_nats`` can score with; see ``MaskedModel``."""

    @property
    def mask_id(self) -> int: ...

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[NetworkInputs]) -> Tensor: ...


class MaskedModel(nn.Module):
    """A network that predicts the tokens behind the masks of a canvas."""

    family: ClassVar[MaskedFamily]
    # Texts of different lengths may share a batch.
    takes_mask = True
    # Whether the network receives the number of words of a text.
    counts_words = False
    # Whether the number of tokens of a text whose size the controls limit is settled before it is drawn.
    settles_tokens = False
    # Log-probability ``[V]`` of each token in a fully masked text, once it is known.
    marginals: Tensor | None = None
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
        """The embeddings ``[V, H]`` of all tokens that a text can contain."""
        raise NotImplementedError

    @property
    def embedding_table(self) -> Tensor:
        """The embeddings as saved, including MASK if it has a row."""
        return self.embeddings

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings ``[..., H]`` of ids of any shape, MASK allowed."""
        raise NotImplementedError

    def soft(self, probabilities: Tensor) -> Tensor:
        """Expected embeddings ``[..., H]`` of token probabilities ``[..., V]``."""
        return probabilities.to(self.embeddings.dtype) @ self.embeddings

    def logits(self, canvas: Tensor, positions: Tensor | None = None, **read: Unpack[NetworkInputs]) -> Tensor:
        """Scores ``[B, L, V]`` of the tokens behind the masks of ``canvas [B, L]``, at least float32.

        Args:
            positions: indices of the positions to score, of any shape, into the flattened batch (row x L + place); the
                result is then ``[*positions.shape, V]``.
        """
        return at_least_float32(self.scores_of(canvas, **read)(positions))

    def scores_of(self, canvas: Tensor, **read: Unpack[NetworkInputs]) -> Scores:
        """Run the network on ``canvas [B, L]``; with a large vocabulary, scoring few positions saves time."""
        raise NotImplementedError

    def nats(self, canvas: Tensor, positions: Tensor, targets: Tensor, **read: Unpack[NetworkInputs]) -> Tensor:
        """Cross-entropy ``[N]``, in nats, of the tokens ``targets [N]`` at ``positions [N]`` of ``canvas [B, L]``."""
        return F.cross_entropy(self.logits(canvas, positions, **read), targets, reduction="none")

    def bound_nats(
        self, ids: Tensor, places: Tensor, share: Tensor, order: Tensor, **read: Unpack[NetworkInputs]
    ) -> Tensor:
        """A one-sample estimate ``[B]``, in nats, of a bound on -log p(words at ``places`` given the rest) of each row.

        For masked models, the bound of ``mask_by_count``.

        Args:
            ids, places: ``[B, L]``.
            share: ``[B]``, uniform in [0, 1): how much is noise.
            order: ``[B, L]``, uniform: which positions are noise.
        """
        return masked_nats(self, ids, *mask_by_count(places, share, order), **read)

    def noise_share(self, places: Tensor, share: Tensor) -> Tensor:
        """How much is noise ``[B]`` where ``bound_nats`` is given ``places`` and ``share``."""
        return share


def masked_nats(
    model: Predictor,
    ids: Tensor,
    masked: Tensor,
    weights: Tensor,
    most: int | None = None,
    **read: Unpack[NetworkInputs],
) -> Tensor:
    """Weighted cross-entropy of the masked words of each row ``[B]``, in nats.

    Args:
        ids: ``[B, L]``.
        masked: ``[B, L]``, true for the positions to replace by MASK.
        weights: ``[B]``.
        most: an upper bound on the number of masked positions in the batch. With it all shapes are known in advance,
            as ``torch.compile`` needs, and a GPU is not synchronised. Counted if not given.
    """
    flat = masked.flatten()
    indices = flat.nonzero() if most is None else torch.nonzero_static(flat, size=most, fill_value=-1)
    positions = indices.flatten()
    is_masked, positions = positions >= 0, positions.clamp(min=0)
    targets = ids.flatten().index_select(0, positions)
    nats = model.nats(noised(ids, masked, model.mask_id), positions, targets, **read)
    rows = positions // ids.shape[1]
    weighted = nats * torch.where(is_masked, weights.index_select(0, rows), 0.0).to(nats)
    return torch.zeros(len(ids), dtype=nats.dtype, device=nats.device).index_add(0, rows, weighted)


def noised(ids: Tensor, masked: Tensor, mask_id: int) -> Tensor:
    """``ids [B, L]`` with MASK where ``masked [B, L]`` is true: a sample of q(x_t | x_0)."""
    return ids.masked_fill(masked, mask_id)
