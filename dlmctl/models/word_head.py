"""The output layer over a large vocabulary, a piece of the positions at a time.

Scores of every word at every position are most of the memory of a small language model, and with their softmax and its
gradient much of its time. Here they stand in float32 for a few positions only; what the backward pass needs is kept in
the precision of the matrix products, and computed again where even that is too much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores that stand in float32 at a time: few enough for the caches of a CPU, enough to fill a GPU.
PIECE_CPU, PIECE = 2**20, 2**26
# Bytes of what is kept for the backward pass; above these it is computed again.
MOST_KEPT = 2**30
# Rows of a matrix in half precision are fast on a GPU where they are a multiple of this.
ALIGNED = 64


class WordHead(NamedTuple):
    """A linear layer from hidden states to scores of words: ``weight [V, H]`` and, if it has one, ``bias [V]``.

    Where ``words`` is given, the rows behind so many are no words, and have no probability.
    """

    weight: Tensor
    bias: Tensor | None = None
    words: int | None = None


def token_nats(hidden: Tensor, head: WordHead, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of the words ``targets [N]`` given ``hidden [N, H]``: ``[N]``, float32 at least.

    What ``F.cross_entropy(F.linear(hidden, head.weight, head.bias), targets, reduction="none")`` is, with products in
    the type of an autocast around it. It can be differentiated once.
    """
    found: Tensor = _TokenNats.apply(hidden, *head, targets)  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def expected_embeddings(hidden: Tensor, head: WordHead, table: Tensor) -> Tensor:
    """softmax(scores of ``hidden [..., H]``) ``table [V, D]``: ``[..., D]``, without a gradient."""
    flat = hidden.flatten(0, -2)
    scores = _Scores(flat, head)
    with torch.autocast(flat.device.type, enabled=False):
        wide = F.pad(table.to(scores.dtype), (0, 0, 0, len(scores.weight) - len(table)))
        found = torch.cat([scores.of(part).softmax(-1) @ wide for part in scores.parts()])
    return found.view(*hidden.shape[:-1], -1)


class _Scores:
    """The scores of words, made piece by piece of ``hidden [N, H]`` in the type of an autocast around this.

    On a GPU the words are filled up to a multiple of ``ALIGNED`` by ones of no probability.
    """

    def __init__(self, hidden: Tensor, head: WordHead) -> None:
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64
        self.dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        self.rows = len(head.weight)
        self.words = self.rows if head.words is None else head.words
        more = -self.rows % ALIGNED if device != "cpu" else 0
        self.piece = max(1, (PIECE_CPU if device == "cpu" else PIECE) // (self.rows + more))
        self.hidden, self.weight = hidden.to(self.dtype), head.weight.to(self.dtype)
        self.bias = None if head.bias is None else head.bias.to(self.dtype)
        if more:
            self.weight = F.pad(self.weight, (0, 0, 0, more))
            self.bias = None if self.bias is None else F.pad(self.bias, (0, more))

    @property
    def fit(self) -> bool:
        """Whether those of all positions may be kept."""
        return len(self.hidden) * len(self.weight) * self.dtype.itemsize <= MOST_KEPT

    def parts(self) -> Iterator[slice]:
        return (slice(at, at + self.piece) for at in range(0, max(1, len(self.hidden)), self.piece))

    def of(self, part: slice) -> Tensor:
        """The scores ``[n, rows of the weight]`` of some positions."""
        scores = F.linear(self.hidden[part], self.weight, self.bias)
        if self.words < len(self.weight):
            scores[:, self.words :] = -torch.inf
        return scores


class _TokenNats(torch.autograd.Function):
    """As ``token_nats``. The gradient with respect to the scores is the softmax less one at the target."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, words: int | None, targets: Tensor
    ) -> Tensor:
        scores = _Scores(hidden, WordHead(weight, bias, words))
        with torch.autocast(hidden.device.type, enabled=False):
            kept = scores.of(slice(None)) if any(ctx.needs_input_grad) and scores.fit else None
            nats = [
                _nats(scores.of(part) if kept is None else kept[part], targets[part], graded=kept is not None)
                for part in scores.parts()
            ]
        ctx.scores, ctx.kept, ctx.types = scores, kept, (hidden.dtype, weight.dtype)
        ctx.save_for_backward(targets)
        return torch.cat(nats)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        (targets,), scores, kept = ctx.saved_tensors, ctx.scores, ctx.kept
        ctx.scores = ctx.kept = None
        each, (of_kind, weight_kind) = gradient[:, None], ctx.types
        of_hidden = scores.hidden.new_empty(scores.hidden.shape, dtype=of_kind)
        of_weight: Tensor | None = None
        of_bias: Tensor | None = None
        with torch.autocast(gradient.device.type, enabled=False):
            for part in (slice(None),) if kept is not None else scores.parts():
                less = scores.of(part) if kept is None else kept
                if kept is None:
                    _nats(less, targets[part], graded=True)
                of_hidden[part] = (less @ scores.weight) * each[part]
                if ctx.needs_input_grad[1]:
                    scaled = (scores.hidden[part] * each[part]).to(scores.dtype)
                    of_weight = _plus(of_weight, (less.T @ scaled)[: scores.rows].to(weight_kind))
                if scores.bias is not None:
                    of_bias = _plus(of_bias, (less.T @ gradient[part].to(scores.dtype))[: scores.rows].to(weight_kind))
        return of_hidden, of_weight, of_bias, None, None


def _plus(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total.add_(more)


def _nats(scores: Tensor, targets: Tensor, *, graded: bool) -> Tensor:
    """-log softmax of ``scores [N, V]`` at the targets ``[N]``; where ``graded`` the scores become the gradient."""
    logs = scores.log_softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    found = logs.gather(1, targets[:, None])
    if graded:
        torch.exp(logs, out=scores)
        # At the target the difference is taken before rounding.
        scores[torch.arange(len(targets), device=targets.device), targets] = torch.expm1(found[:, 0]).to(scores.dtype)
    return -found[:, 0]
