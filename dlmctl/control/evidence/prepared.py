"""Evidence prepared for a batch, with a row for each distinct target, and the controls that guide by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlmctl.control.evidence.bag import Bag
from dlmctl.control.evidence.bag import evidence as bag_evidence
from dlmctl.control.prepared import NO_ROOM, Prepared
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.diffusion.layout import SPECIAL, Layout

# Most targets computed at once, to limit memory.
CHUNK = 64

Target = TypeVar("Target", bound=Hashable)


@dataclass(frozen=True)
class Evidence:
    """Log-evidence of every word at every position of a batch, as two factors.

    Args:
        rows: nats ``[U, V]``; the first row is zero, for no evidence.
        index: the row of each position ``[B, L]``.
    """

    rows: Tensor
    index: Tensor

    def at(self, device: torch.device | str = "cpu") -> Tensor:
        """Nats ``[B, L, V]`` on a device; only the factors are transferred."""
        return self.rows.to(device)[self.index.to(device)]

    def scaled(self, weight: float) -> Evidence:
        """The evidence multiplied by ``weight``."""
        return Evidence(weight * self.rows, self.index)

    def inside(self, layouts: Sequence[Layout]) -> Evidence:
        """The evidence without positions beyond the most words that the texts may have."""
        last = torch.tensor([layout.positions - SPECIAL for layout in layouts])[:, None]
        return Evidence(self.rows, torch.where(torch.arange(self.index.shape[1]) > last, 0, self.index))


def prepare(
    texts: Sequence[Sequence[Target | None]],
    length: int,
    size: int,
    rows_of: Callable[[Sequence[Target]], NDArray[np.float32]],
) -> Evidence:
    """Compute the rows for the distinct targets of a batch.

    Args:
        texts: for each text, a target for each word, or None for a word without one.
        length: number of positions L of the batch; the first word is after START.
        size: number of words V of the vocabulary.
        rows_of: maps targets to nats ``[targets, V]``.
    """
    distinct = list(dict.fromkeys(target for text in texts for target in text if target is not None))
    row_of = {target: row for row, target in enumerate(distinct, start=1)}
    rows = torch.zeros(1 + len(distinct), size)
    for start in range(0, len(distinct), CHUNK):
        chunk = distinct[start : start + CHUNK]
        rows[1 + start : 1 + start + len(chunk)] = torch.from_numpy(rows_of(chunk))
    index = np.zeros((len(texts), length), dtype=np.int64)
    for text_index, text in enumerate(texts):
        text_rows = [0 if target is None else row_of[target] for target in text][: length - 1]
        index[text_index, 1 : 1 + len(text_rows)] = text_rows
    return Evidence(rows, torch.from_numpy(index))


class PreparedEvidence(Prepared):
    """Guidance by the evidence of every word at every position.

    Args:
        evidence: of the batch.
        counts: for how many words of each text something is wanted, from the first on.
        tags: as in ``Prepared``.
    """

    def __init__(
        self,
        evidence: Evidence,
        counts: Sequence[int],
        batch: BatchContext[Any],
        tags: Sequence[Sequence[str]] | None = None,
    ) -> None:
        evidence = evidence.inside(batch.layouts)
        self.evidence: Tensor = evidence.at(batch.device)
        self.words = (evidence.index > 0).to(batch.device)
        self.beyond, self.tags = no_room_nats(counts, batch), tags

    def energy(self, state: ControlState) -> Tensor:
        """-log of the expected evidence, summed over the words, plus ``NO_ROOM`` for each word beyond the text."""
        return self.beyond - ((state.word_log_probs + self.evidence).logsumexp(-1) * self.words).sum(-1)


class ClassifierWithEvidence(Prepared):
    """Guidance by a classifier, combined with the evidence of single words.

    Args:
        guided: the classifier's guidance.
        evidence: ``[B, L, V]``.
        shares: factor on the classifier's energy, for each text.
    """

    gradient_too = True
    evidence: Tensor

    def __init__(self, guided: Prepared, evidence: Tensor, shares: Sequence[float] | Tensor) -> None:
        self.guided, self.evidence = guided, evidence
        self.shares = torch.as_tensor(shares, device=evidence.device)

    def energy(self, state: ControlState) -> Tensor:
        return self.shares * self.guided.energy(state)

    def of_rows(self, rows: Tensor, length: int) -> Prepared | None:
        guided = self.guided.of_rows(rows, length)
        if guided is None:
            return None
        selected = ClassifierWithEvidence(
            guided, self.evidence[:, :length].index_select(0, rows), self.shares.index_select(0, rows)
        )
        selected.one_update = self.one_update
        return selected


class PreparedBag(Prepared):
    """Guidance by linear weights of words, exact for each word given the others, known or expected.

    Args:
        bag: the weights; what the model has beyond the vocabulary, such as rows that fill up its embeddings, has none.
        wanted: the index of the label that each text must have.
        weight: factor on the evidence.
        margin: see ``bag.evidence``; the energy, -log p(label), is without it.
    """

    weighs = True

    def __init__(
        self, bag: Bag, wanted: Sequence[int], weight: float, batch: BatchContext[Any], margin: float = 0.0
    ) -> None:
        weights = F.pad(bag.weights, (0, 0, 0, len(batch.model.embeddings) - len(bag.weights)))
        self.bag = Bag(bag.labels, weights.to(batch.device), bag.bias.to(batch.device), bag.vocabulary)
        self.wanted, self.weight, self.margin = torch.tensor(wanted, device=batch.device), weight, margin

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        scores = self.bag.expected(probabilities)
        return self.weight * bag_evidence(self.bag, scores, self.wanted, self.margin).to(probabilities)

    def energy(self, state: ControlState) -> Tensor:
        """-log p(label | expected words)."""
        scores = self.bag.expected(state.word_log_probs.exp()).sum(1) + self.bag.bias
        return F.cross_entropy(scores, self.wanted, reduction="none")


def no_room_nats(counts: Sequence[int], batch: BatchContext[Any]) -> Tensor:
    """``NO_ROOM`` for each of the ``counts`` words wanted in a text that its layout has no position for: ``[B]``."""
    pairs = zip(counts, batch.layouts, strict=True)
    missing = [max(0, count - (layout.positions - SPECIAL)) for count, layout in pairs]
    return NO_ROOM * torch.tensor(missing, device=batch.device)
