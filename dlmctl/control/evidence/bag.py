"""A linear classifier of bags of words, read exactly: what each word at one place does to a label of the whole text.

The score of label y is b[y] + the sum of W[word, y] over the words. With the other places' words known, or expected
where they are still open, p(y | text with v here) follows for every v without an approximation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import save
from torch import Tensor

from dlmctl.control.evidence.table import AGAIN, FORMAT, read_arrays, same_vocabulary
from dlmctl.errors import ModelError, brief

MAX_CLASSES = 1000
# How far apart the weights of one word may be, in nats: beyond it float32 would lose terms of the sum over labels.
MAX_SPREAD = 80.0
# Of fitting: squared weights as a share of the loss, and texts of a step.
PENALTY, BATCH = 5e-5, 1024


@dataclass(frozen=True, eq=False)
class Bag:
    """Weights of words for labels.

    Args:
        labels: their names.
        weights: ``[V, labels]``.
        bias: ``[labels]``.
        vocabulary: fingerprint of the words.
    """

    labels: tuple[str, ...]
    weights: Tensor
    bias: Tensor
    vocabulary: str = ""

    def expected(self, probabilities: Tensor) -> Tensor:
        """The expected weights ``[B, L, labels]`` of words drawn from ``[B, L, V]``."""
        return probabilities.to(self.weights.dtype) @ self.weights


def evidence(bag: Bag, scores: Tensor, wanted: Tensor) -> Tensor:
    """log p(the wanted label | this word here, the other places as they are) for every word ``[B, L, V]``.

    Memory is that of the result: the sum over labels is a product of two matrices.

    Args:
        scores: the weights ``[B, L, labels]`` of the words at each place, expected ones where they are open, zero at
            places that hold no word.
        wanted: the number of the label ``[B]``.
    """
    others = scores.sum(1, keepdim=True) - scores + bag.bias
    total = _log_sum(others, bag.weights)
    met = others.gather(2, wanted[:, None, None].expand(-1, others.shape[1], 1)) + bag.weights.T[wanted][:, None]
    # Rounding of the two sums could lift a probability above one.
    return (met - total).clamp(max=0)


def _log_sum(scores: Tensor, weights: Tensor) -> Tensor:
    """log of the sum over labels of exp(scores ``[B, L, labels]`` + weights ``[V, labels]``), ``[B, L, V]``."""
    # The largest term of each side is taken out, so that no product overflows. The best label's is then at least
    # exp(-MAX_SPREAD), and whatever underflows beside it does not count.
    here, there = scores.amax(-1, keepdim=True), weights.amax(-1)
    product = (scores - here).exp() @ (weights - there[:, None]).exp().T
    return product.clamp_min(torch.finfo(product.dtype).tiny).log() + here + there


def balanced(labels: Sequence[int], sources: Sequence[int], least: int = 200) -> Tensor:
    """Weights of texts ``[N]``, mean 1: every label weighs the same, and within a label every source.

    A source that has one label alone would teach its own habits; such texts weigh nothing, unless their label has no
    others to be learned from.

    Args:
        labels, sources: numbers of each text's label and source.
        least: a label's texts of one source weigh less than those of another where they are fewer than this, so
            that a handful of them does not outweigh thousands.
    """
    label, source = np.asarray(labels), np.asarray(sources)
    cells = np.zeros((source.max() + 1, label.max() + 1))
    np.add.at(cells, (source, label), 1)
    useful = (cells > 0).sum(1) > 1
    without = ~(cells[useful] > 0).any(0)
    found = np.where(useful[source] | without[label], 1 / np.maximum(cells[source, label], least), 0.0)
    per_label = np.bincount(label, found)
    found = found / np.maximum(per_label[label], 1e-12)
    return torch.tensor(found / max(found.mean(), 1e-12), dtype=torch.float32)


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
    """Multinomial logistic regression on bags of words.

    Args:
        bags: word ids of each text, without repeats or with, as they shall count.
        labels: numbers of their labels in ``names``.
        size: how many words there are.
        weights: of the texts ``[N]``, see ``balanced``.
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
    useful = np.flatnonzero(share.numpy() > 0)
    for _ in range(steps):
        rows = rng.choice(useful, min(BATCH, len(useful)), replace=False)
        before = np.cumsum(sizes[rows]) - sizes[rows]
        cells = np.arange(int(sizes[rows].sum())) + np.repeat(starts[rows] - before, sizes[rows])
        scores = F.embedding_bag(flat[cells], matrix, torch.from_numpy(before), mode="sum") + bias
        nats = F.cross_entropy(scores, target[rows], reduction="none")
        loss = (nats * share[rows]).mean() + PENALTY * matrix.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Bag(tuple(names), matrix.detach(), bias.detach(), vocabulary)


def save_bag(bag: Bag, path: Path) -> None:
    """Write a bag as safetensors, in half precision."""
    arrays = {"weights": bag.weights.half().numpy(), "bias": bag.bias.float().numpy()}
    about = {"format": FORMAT, "labels": bag.labels, "vocabulary": bag.vocabulary}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(arrays, {"evidence": json.dumps(about, ensure_ascii=False)}))


def load_bag(path: Path, vocabulary: str | None = None) -> Bag:
    """A bag that ``save_bag`` wrote; its weights as float32.

    Raises:
        ModelError: it is missing, damaged, or weighs the words of another vocabulary.
    """
    try:
        about, arrays = read_arrays(path)
        labels = tuple(str(name) for name in about["labels"])
        bag = Bag(
            labels,
            torch.from_numpy(arrays["weights"].astype(np.float32)),
            torch.from_numpy(arrays["bias"].astype(np.float32)),
            str(about["vocabulary"]),
        )
        if not 0 < len(labels) <= MAX_CLASSES or bag.weights.ndim != 2 or bag.weights.shape[1] != len(labels):
            raise ValueError("the weights do not fit the labels")
        if bag.bias.shape != (len(labels),) or not (bag.weights.isfinite().all() and bag.bias.isfinite().all()):
            raise ValueError("the bias does not fit, or a weight is no number")
        if len(bag.weights) and (bag.weights.amax(1) - bag.weights.amin(1)).max() > MAX_SPREAD:
            raise ValueError(f"the weights of a word differ by more than {MAX_SPREAD:g} nats")
    except FileNotFoundError:
        raise ModelError("the word weights are missing.", where=str(path), remedy=AGAIN) from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the word weights are damaged: {brief(error)!r}.", where=str(path), remedy=AGAIN) from None
    same_vocabulary(bag.vocabulary, vocabulary, path)
    return bag
