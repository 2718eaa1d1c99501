"""A linear bag-of-words classifier, and the exact effect of each word at each position on the label of a text.

The score of label y is b[y] + the sum of W[word, y] over the words. With the words at the other positions known, or
replaced by expectations where they are open, p(y | text with v here) follows for every v without approximation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save
from torch import Tensor

from dlmctl.control.evidence.table import FORMAT, RECOUNT_REMEDY, read_arrays, require_vocabulary
from dlmctl.errors import ModelError, short_message

MAX_CLASSES = 1000
# Largest difference of the weights of one word, in nats: beyond it float32 would lose terms of the sum over labels.
MAX_SPREAD = 80.0
# Texts per step of fitting.
BATCH = 1024


@dataclass(frozen=True, eq=False)
class Bag:
    """Weights of words for labels.

    Args:
        labels: names of the labels.
        weights: ``[V, labels]``.
        bias: ``[labels]``.
        vocabulary: fingerprint of the words.
    """

    labels: tuple[str, ...]
    weights: Tensor
    bias: Tensor
    vocabulary: str = ""

    def for_words(self, origins: NDArray[np.int64], vocabulary: str) -> Bag:
        """The same weights for another vocabulary, 0 for new words. Arguments as for ``CountTable.for_words``."""
        ids = torch.from_numpy(origins)
        return replace(self, weights=self.weights[ids] * (ids >= 0)[:, None], vocabulary=vocabulary)

    @cached_property
    def weighted(self) -> Tensor | None:
        """The ids of the words with weights if most have none, as in a large vocabulary of tokens; otherwise None."""
        ids = self.weights.any(-1).nonzero().flatten()
        return ids if 2 * len(ids) < len(self.weights) else None

    def expected(self, probabilities: Tensor) -> Tensor:
        """The expected weights ``[B, L, labels]`` of words with probabilities ``[B, L, V]``."""
        return probabilities.to(self.weights.dtype) @ self.weights


def evidence(bag: Bag, scores: Tensor, wanted: Tensor, margin: float = 0.0) -> Tensor:
    """log p(wanted label | word v here, the other positions unchanged) for every word v: ``[B, L, V]``.

    It needs no more memory than the result: the sum over labels is a matrix product. All words without weights have the
    same value, which is computed once.

    Args:
        scores: the weights ``[B, L, labels]`` of the word at each position, expected ones where it is open, zero at
            positions without a word.
        wanted: the index of the label ``[B]``.
        margin: nats that the score of the wanted label is lowered by. Without it, a text whose expected words each say
            a little for the label already counts as having it, and no word gains from saying more.
    """
    others = scores.sum(1, keepdim=True) - scores + bag.bias
    others = others - margin * F.one_hot(wanted, others.shape[2])[:, None]
    if bag.weighted is None:
        return _log_share(others, bag.weights, wanted)
    without_weights = _log_share(others, torch.zeros_like(bag.weights[:1]), wanted)
    with_weights = _log_share(others, bag.weights[bag.weighted], wanted)
    return without_weights.repeat(1, 1, len(bag.weights)).index_copy_(2, bag.weighted, with_weights)


def _log_share(others: Tensor, weights: Tensor, wanted: Tensor) -> Tensor:
    """``log_softmax`` over labels of ``others [B, L, labels]`` + ``weights [V, labels]``, of the ``wanted [B]`` one:
    ``[B, L, V]``."""
    score = others.gather(2, wanted[:, None, None].expand(-1, others.shape[1], 1)) + weights.T[wanted][:, None]
    # Rounding of the two sums could make a probability exceed 1.
    return (score - _log_sum(others, weights)).clamp(max=0)


def _log_sum(scores: Tensor, weights: Tensor) -> Tensor:
    """``logsumexp`` over labels of scores ``[B, L, labels]`` + weights ``[V, labels]``: ``[B, L, V]``."""
    # The maximum of each factor is subtracted, so that no product overflows. The term of the best label is then at
    # least exp(-MAX_SPREAD), and terms that underflow are negligible.
    max_score, max_weight = scores.amax(-1, keepdim=True), weights.amax(-1)
    product = (scores - max_score).exp() @ (weights - max_weight[:, None]).exp().T
    return product.clamp_min(torch.finfo(product.dtype).tiny).log() + max_score + max_weight


def balanced(labels: Sequence[int], sources: Sequence[int], least: int = 200) -> Tensor:
    """Relative weights of texts ``[N]``: all labels have equal weight, and within a label all sources.

    Texts of a source with a single label get weight 0, as the classifier would learn the style of the source, unless
    there are too few other texts with their label: fewer than ``least`` and than half of all.

    Args:
        labels, sources: indices of each text's label and source.
        least: a source with fewer than this many texts of a label gets proportionally less weight, so that a handful of
            texts does not outweigh thousands.
    """
    label, source = np.asarray(labels), np.asarray(sources)
    cells = np.zeros((source.max() + 1, label.max() + 1))
    np.add.at(cells, (source, label), 1)
    has_several_labels = (cells > 0).sum(1) > 1
    is_uncovered = cells[has_several_labels].sum(0) < np.minimum(least, cells.sum(0) / 2)
    is_used = has_several_labels[source] | is_uncovered[label]
    weights = np.where(is_used, 1 / np.maximum(cells[source, label], least), 0.0)
    per_label = np.bincount(label, weights)
    return torch.tensor(weights / np.maximum(per_label[label], 1e-12), dtype=torch.float32)


def fit_bag(
    bags: Sequence[Sequence[int]],
    labels: Sequence[int],
    names: Sequence[str],
    size: int,
    *,
    weights: Tensor | None = None,
    steps: int = 500,
    lr: float = 0.05,
    vocabulary: str = "",
) -> Bag:
    """Multinomial logistic regression on bags of words, with a standard normal prior of each weight.

    Args:
        bags: word ids of each text; repeated ids count repeatedly.
        labels: indices of their labels in ``names``.
        names: names of the labels.
        size: number of words V.
        weights: relative weights of the texts ``[N]``, see ``balanced``.
    """
    rng = np.random.default_rng(0)
    flat = torch.tensor([word for bag in bags for word in bag], dtype=torch.long)
    sizes = np.array([len(bag) for bag in bags])
    starts = np.cumsum(sizes) - sizes
    target = torch.tensor(list(labels), dtype=torch.long)
    share = torch.ones(len(bags)) if weights is None else weights
    matrix = torch.zeros(size, len(names), requires_grad=True)
    bias = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.Adam([matrix, bias], lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    used = np.flatnonzero(share.numpy() > 0)
    share = share / share[used].mean()
    for _ in range(steps):
        rows = rng.choice(used, min(BATCH, len(used)), replace=False)
        offsets = np.cumsum(sizes[rows]) - sizes[rows]
        cells = np.arange(int(sizes[rows].sum())) + np.repeat(starts[rows] - offsets, sizes[rows])
        scores = F.embedding_bag(flat[cells], matrix, torch.from_numpy(offsets), mode="sum") + bias
        nats = F.cross_entropy(scores, target[rows], reduction="none")
        loss = (nats * share[rows]).mean() + matrix.square().sum() / (2 * len(used))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Bag(tuple(names), matrix.detach(), bias.detach(), vocabulary)


def save_bag(bag: Bag, path: Path) -> None:
    """Write a bag as safetensors, in half precision."""
    arrays = {"weights": bag.weights.half().numpy(), "bias": bag.bias.float().numpy()}
    metadata = {"format": FORMAT, "labels": bag.labels, "vocabulary": bag.vocabulary}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(arrays, {"evidence": json.dumps(metadata, ensure_ascii=False)}))


def load_bag(path: Path, vocabulary: str | None = None) -> Bag:
    """Load a bag written by ``save_bag``, with its weights as float32.

    Args:
        vocabulary: the fingerprint that its words must have; any if not given.

    Raises:
        ModelError: it is missing, damaged, or for another vocabulary.
    """
    try:
        metadata, arrays = read_arrays(path)
        labels = tuple(str(name) for name in metadata["labels"])
        bag = Bag(
            labels,
            torch.from_numpy(arrays["weights"].astype(np.float32)),
            torch.from_numpy(arrays["bias"].astype(np.float32)),
            str(metadata["vocabulary"]),
        )
        if not 0 < len(labels) <= MAX_CLASSES or bag.weights.ndim != 2 or bag.weights.shape[1] != len(labels):
            raise ValueError("the weights do not fit the labels")
        if bag.bias.shape != (len(labels),) or not (bag.weights.isfinite().all() and bag.bias.isfinite().all()):
            raise ValueError("the bias does not fit, or a weight is not a number")
        if len(bag.weights) and (bag.weights.amax(1) - bag.weights.amin(1)).max() > MAX_SPREAD:
            raise ValueError(f"the weights of a word differ by more than {MAX_SPREAD:g} nats")
    except FileNotFoundError:
        raise ModelError("the word weights are missing.", where=str(path), remedy=RECOUNT_REMEDY) from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the word weights are damaged: {short_message(error)!r}.", where=str(path), remedy=RECOUNT_REMEDY
        ) from None
    require_vocabulary(bag.vocabulary, vocabulary, path)
    return bag
