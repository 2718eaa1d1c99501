"""The output layer over a large vocabulary, computed for a chunk of the positions at a time.

The scores of all words at all positions take most of the memory of a small language model, and with their softmax and
its gradient much of its time. Here they are in float32 for only a few positions at a time; what the backward pass needs
is kept in the precision of the matrix products, and recomputed if even that is too much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores in float32 at a time: few enough for the caches of a CPU, enough to fill a GPU.
PIECE_CPU, PIECE = 2**20, 2**26
# Most bytes that are kept for the backward pass; beyond, the scores are recomputed.
MOST_KEPT = 2**30
# On a GPU, matrix products in half precision are fast if the number of rows is a multiple of this.
ALIGNED = 64


class WordHead(NamedTuple):
    """A linear layer from hidden states to word scores: ``weight [V, H]`` and optionally ``bias [V]``.

    If ``words`` is given, only the first ``words`` rows are words; the others have probability 0.
    """

    weight: Tensor
    bias: Tensor | None = None
    words: int | None = None


def token_nats(hidden: Tensor, head: WordHead, targets: Tensor) -> Tensor:
    """Cross-entropy ``[N]``, in nats, of the words ``targets [N]`` given ``hidden [N, H]``; at least float32.

    Equal to ``F.cross_entropy(F.linear(hidden, head.weight, head.bias), targets, reduction="none")``, with matrix
    products in the dtype of an enclosing autocast. It can be differentiated once.
    """
    nats: Tensor = _TokenNats.apply(hidden, *head, targets)  # type: ignore[no-untyped-call]
    return nats


@torch.no_grad()
def expected_embeddings(hidden: Tensor, head: WordHead, table: Tensor) -> Tensor:
    """Expected embeddings softmax(scores) ``table [V, D]`` of ``hidden [..., H]``: ``[..., D]``, without a gradient."""
    flat = hidden.flatten(0, -2)
    scores = _Scores(flat, head)
    with torch.autocast(flat.device.type, enabled=False):
        padded_table = F.pad(table.to(scores.dtype), (0, 0, 0, len(scores.weight) - len(table)))
        embeddings = torch.cat([scores.at(chunk).softmax(-1) @ padded_table for chunk in scores.chunks()])
    return embeddings.view(*hidden.shape[:-1], -1)


class _Scores:
    """The word scores of ``hidden [N, H]``, computed in chunks, in the dtype of an enclosing autocast.

    On a GPU the words are padded to a multiple of ``ALIGNED`` with rows of probability 0.
    """

    def __init__(self, hidden: Tensor, head: WordHead) -> None:
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
        self.dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        self.rows = len(head.weight)
        self.words = self.rows if head.words is None else head.words
        padding = -self.rows % ALIGNED if device != "cpu" else 0
        self.chunk_size = max(1, (PIECE_CPU if device == "cpu" else PIECE) // (self.rows + padding))
        self.hidden, self.weight = hidden.to(self.dtype), head.weight.to(self.dtype)
        self.bias = None if head.bias is None else head.bias.to(self.dtype)
        if padding:
            self.weight = F.pad(self.weight, (0, 0, 0, padding))
            self.bias = None if self.bias is None else F.pad(self.bias, (0, padding))

    @property
    def fit(self) -> bool:
        """Whether the scores of all positions may be kept."""
        return len(self.hidden) * len(self.weight) * self.dtype.itemsize <= MOST_KEPT

    def chunks(self) -> Iterator[slice]:
        return (slice(start, start + self.chunk_size) for start in range(0, max(1, len(self.hidden)), self.chunk_size))

    def at(self, positions: slice) -> Tensor:
        """The scores ``[n, rows of the weight]`` at some positions."""
        scores = F.linear(self.hidden[positions], self.weight, self.bias)
        if self.words < len(self.weight):
            scores[:, self.words :] = -torch.inf
        return scores


class _TokenNats(torch.autograd.Function):
    """As ``token_nats``. The gradient with respect to the scores is the softmax, minus one at the target."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, words: int | None, targets: Tensor
    ) -> Tensor:
        scores = _Scores(hidden, WordHead(weight, bias, words))
        with torch.autocast(hidden.device.type, enabled=False):
            kept = scores.at(slice(None)) if any(ctx.needs_input_grad) and scores.fit else None
            nats = [
                _nats(scores.at(chunk) if kept is None else kept[chunk], targets[chunk], to_gradient=kept is not None)
                for chunk in scores.chunks()
            ]
        ctx.scores, ctx.kept, ctx.types = scores, kept, (hidden.dtype, weight.dtype)
        ctx.save_for_backward(targets)
        return torch.cat(nats)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        (targets,), scores, kept = ctx.saved_tensors, ctx.scores, ctx.kept
        ctx.scores = ctx.kept = None
        factors, (hidden_dtype, weight_dtype) = gradient[:, None], ctx.types
        grad_hidden = scores.hidden.new_empty(scores.hidden.shape, dtype=hidden_dtype)
        grad_weight: Tensor | None = None
        grad_bias: Tensor | None = None
        with torch.autocast(gradient.device.type, enabled=False):
            for chunk in (slice(None),) if kept is not None else scores.chunks():
                grad_scores = scores.at(chunk) if kept is None else kept
                if kept is None:
                    _nats(grad_scores, targets[chunk], to_gradient=True)
                grad_hidden[chunk] = (grad_scores @ scores.weight) * factors[chunk]
                if ctx.needs_input_grad[1]:
                    scaled = (scores.hidden[chunk] * factors[chunk]).to(scores.dtype)
                    grad_weight = _accumulated(grad_weight, (grad_scores.T @ scaled)[: scores.rows].to(weight_dtype))
                if scores.bias is not None:
                    chunk_bias = (grad_scores.T @ gradient[chunk].to(scores.dtype))[: scores.rows]
                    grad_bias = _accumulated(grad_bias, chunk_bias.to(weight_dtype))
        return grad_hidden, grad_weight, grad_bias, None, None


def _accumulated(total: Tensor | None, addend: Tensor) -> Tensor:
    return addend if total is None else total.add_(addend)


def _nats(scores: Tensor, targets: Tensor, *, to_gradient: bool) -> Tensor:
    """-log softmax of ``scores [N, V]`` at ``targets [N]``; with ``to_gradient``, overwrites scores by the gradient."""
    log_probs = scores.log_softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    target_log_probs = log_probs.gather(1, targets[:, None])[:, 0]
    if to_gradient:
        torch.exp(log_probs, out=scores)
        # At the target, 1 is subtracted before rounding.
        scores[torch.arange(len(targets), device=targets.device), targets] = torch.expm1(target_log_probs).to(scores)
    return -target_log_probs
