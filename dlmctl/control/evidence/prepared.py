"""Evidence ready for a batch: one row for each different target, and which row each place takes; what steers by it."""

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

# Most targets worked out at once, which bounds memory while rows are made.
CHUNK = 64

Target = TypeVar("Target", bound=Hashable)


@dataclass(frozen=True)
class Evidence:
    """Log-evidence of every word at every place of a batch, in two factors.

    Args:
        rows: nats ``[U, V]``, the first row zero: no evidence.
        index: the row of each place ``[B, L]``.
    """

    rows: Tensor
    index: Tensor

    def at(self, device: torch.device | str = "cpu") -> Tensor:
        """Nats ``[B, L, V]`` on a device, to which the factors travel."""
        return self.rows.to(device)[self.index.to(device)]

    def scaled(self, weight: float) -> Evidence:
        """The same evidence, ``weight`` times as strong."""
        return Evidence(weight * self.rows, self.index)

    def inside(self, layouts: Sequence[Layout]) -> Evidence:
        """The same evidence, none at places beyond the words that the texts may have."""
        last = torch.tensor([layout.positions - SPECIAL for layout in layouts])[:, None]
        return Evidence(self.rows, torch.where(torch.arange(self.index.shape[1]) > last, 0, self.index))


def prepare(
    texts: Sequence[Sequence[Target | None]],
    length: int,
    size: int,
    rows_of: Callable[[Sequence[Target]], NDArray[np.float32]],
) -> Evidence:
    """Rows for the different targets of a batch.

    Args:
        texts: for each text a target for each word, None for a word without one.
        length: places L of the batch; the first word stands behind START.
        size: words V of the vocabulary.
        rows_of: targets to nats ``[targets, V]``.
    """
    different = list(dict.fromkeys(target for text in texts for target in text if target is not None))
    numbers = {target: at for at, target in enumerate(different, start=1)}
    rows = torch.zeros(1 + len(different), size)
    for start in range(0, len(different), CHUNK):
        part = different[start : start + CHUNK]
        rows[1 + start : 1 + start + len(part)] = torch.from_numpy(rows_of(part))
    index = np.zeros((len(texts), length), dtype=np.int64)
    for row, text in enumerate(texts):
        found = [0 if target is None else numbers[target] for target in text][: length - 1]
        index[row, 1 : 1 + len(found)] = found
    return Evidence(rows, torch.from_numpy(index))


class PreparedEvidence(Prepared):
    """Guidance by what is known of every word at every place.

    Args:
        evidence: of the batch.
        counts: how many words each text was asked something about, from its first on.
        tags: as of ``Prepared``.
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
        self.beyond, self.tags = beyond(counts, batch), tags

    def energy(self, state: ControlState) -> Tensor:
        """-log of the expected evidence, summed over the words; ``NO_ROOM`` for each word beyond the text."""
        return self.beyond - ((state.word_log_probs + self.evidence).logsumexp(-1) * self.words).sum(-1)


class Beside(Prepared):
    """A classifier's guidance, with evidence of single words beside it.

    Args:
        guided: by the classifier.
        evidence: ``[B, L, V]``.
        shares: what is left of each text's energy.
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
        found = Beside(guided, self.evidence[:, :length].index_select(0, rows), self.shares.index_select(0, rows))
        found.one_update = self.one_update
        return found


class PreparedBag(Prepared):
    """Guidance by linear weights of words, exact for each word given what the others are or are expected to be.

    Args:
        bag: the weights.
        wanted: the number of the label that each text is to have.
        weight: of the evidence.
    """

    weighs = True

    def __init__(self, bag: Bag, wanted: Sequence[int], weight: float, batch: BatchContext[Any]) -> None:
        self.bag = Bag(bag.labels, bag.weights.to(batch.device), bag.bias.to(batch.device), bag.vocabulary)
        self.wanted, self.weight = torch.tensor(wanted, device=batch.device), weight

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        return self.weight * bag_evidence(self.bag, self.bag.expected(probabilities), self.wanted).to(probabilities)

    def energy(self, state: ControlState) -> Tensor:
        """-log p(label given the expected words)."""
        scores = self.bag.expected(state.word_log_probs.exp()).sum(1) + self.bag.bias
        return F.cross_entropy(scores, self.wanted, reduction="none")


def beyond(counts: Sequence[int], batch: BatchContext[Any]) -> Tensor:
    """Nats ``[B]`` of words that were asked for, so many of each text, and that their texts have no positions for."""
    pairs = zip(counts, batch.layouts, strict=True)
    missed = [max(0, count - (layout.positions - SPECIAL)) for count, layout in pairs]
    return NO_ROOM * torch.tensor(missed, device=batch.device)
