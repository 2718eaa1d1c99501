"""A judge of labelled text that shares nothing with what guides: a linear model of words, word pairs and rare words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

# Fewer texts than this have too little to say about a feature.
MIN_TEXTS = 3
STEPS, LEARNING_RATE, L2 = 200, 0.05, 2e-4
# Words and pairs that are named as what a text was told by.
TELLING = 3
MOST_BLAMED = 3
# Words of a text that are told by how rare they are: the rarest, the second rarest and the third.
RAREST = 3
NO_RANKS: Mapping[str, int] = {}


def features(words: Sequence[str], ranks: Mapping[str, int] = NO_RANKS) -> set[str]:
    """The words and the pairs of neighbours of a text, in lower case, each once, and how rare its rarest words are.

    Args:
        ranks: of each word of a vocabulary how many are more frequent, about; a word is as rare as the number of digits
            of that in base 2 says, in the more frequent of its spelling here and in lower case. Without it nothing is
            said of rare words.
    """
    lower = [word.lower() for word in words]
    rare = {name for name, _ in rarest(words, ranks)}
    return {*lower, *(f"{first} {second}" for first, second in pairwise(lower)), *rare}


def rarest(words: Sequence[str], ranks: Mapping[str, int]) -> list[tuple[str, int]]:
    """The features of the rarest words of a text, each with the place of its word."""
    if not ranks:
        return []
    unknown = len(ranks)
    found = [
        (min(ranks.get(word, unknown), ranks.get(word.lower(), unknown)), at)
        for at, word in enumerate(words)
        if word[:1].isalpha()
    ]
    order = sorted(found, key=lambda one: (-one[0], one[1]))[:RAREST]
    return [(f"rarest {number} {rank.bit_length()}", at) for number, (rank, at) in enumerate(order)]


@dataclass(frozen=True)
class NgramJudge:
    """Multinomial logistic regression on the presence of ``features``.

    Attributes:
        weights: of each feature one a class; ``bias``: one a class.
        ranks: as of ``features``: the numbers of a model's words, whose vocabulary begins with the most frequent ones.
            Not saved.
    """

    bias: list[float]
    weights: dict[str, list[float]]
    ranks: Mapping[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(
        cls,
        texts: Sequence[Sequence[str]],
        classes: Sequence[int],
        count: int,
        ranks: Mapping[str, int] = NO_RANKS,
    ) -> NgramJudge:
        """Learn from clean texts and the class, 0 to ``count`` - 1, of each."""
        import torch
        import torch.nn.functional as F

        bags = [sorted(features(text, ranks)) for text in texts]
        seen = Counter(name for bag in bags for name in bag)
        index = {name: at for at, name in enumerate(sorted(name for name in seen if seen[name] >= MIN_TEXTS))}
        rows = [[index[name] for name in bag if name in index] for bag in bags]
        ids = torch.tensor([at for row in rows for at in row], dtype=torch.long)
        offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
        weights = torch.zeros(len(index), count, requires_grad=True)
        bias = torch.zeros(count, requires_grad=True)
        target, optimizer = torch.tensor(classes), torch.optim.Adam([weights, bias], lr=LEARNING_RATE)
        for _ in range(STEPS):
            scores = F.embedding_bag(ids, weights, offsets, mode="sum") + bias
            loss = F.cross_entropy(scores, target) + L2 * weights.square().sum()
            weights.grad, bias.grad = torch.autograd.grad(loss, [weights, bias])
            optimizer.step()
        rounded = [[round(value, 1) for value in row] for row in weights.tolist()]
        return cls(
            [round(value, 2) for value in bias.tolist()],
            {name: row for name, row in zip(index, rounded, strict=True) if any(row)},
            ranks,
        )

    def probabilities(self, words: Sequence[str]) -> list[float]:
        """Of each class, given the words of a text."""
        found = [self.weights[name] for name in sorted(features(words, self.ranks)) if name in self.weights]
        scores = [sum(column) for column in zip(self.bias, *found, strict=True)]
        top = max(scores)
        exponentials = [math.exp(score - top) for score in scores]
        return [value / sum(exponentials) for value in exponentials]

    def telling(self, words: Sequence[str], label: int) -> list[tuple[int, int]]:
        """First and last word, from 0, of the ``TELLING`` words and pairs that speak most for a class."""
        lower = [word.lower() for word in words]
        spans = [(at, at) for at in range(len(words))] + [(at, at + 1) for at in range(len(words) - 1)]
        found = []
        for start, end in spans:
            row = self.weights.get(" ".join(lower[start : end + 1]), ())
            others = [weight for at, weight in enumerate(row) if at != label]
            if others and row[label] > max(others):
                found.append((max(others) - row[label], start, end))
        return sorted((start, end) for _, start, end in sorted(found)[:TELLING])

    def against(self, words: Sequence[str], wanted: int, other: int) -> tuple[int, ...]:
        """The words, at most ``MOST_BLAMED``, that speak most for the class ``other`` and against ``wanted``.

        A word counts with the pairs that it is in, and with how rare it is.
        """
        lower = [word.lower() for word in words]
        none = [0.0] * len(self.bias)
        cost = [0.0] * len(words)
        for at, word in enumerate(lower):
            found = self.weights.get(word, none)
            cost[at] += found[other] - found[wanted]
            if at:
                pair = self.weights.get(f"{lower[at - 1]} {word}", none)
                cost[at - 1] += pair[other] - pair[wanted]
                cost[at] += pair[other] - pair[wanted]
        for name, at in rarest(words, self.ranks):
            rare = self.weights.get(name, none)
            cost[at] += rare[other] - rare[wanted]
        worst = sorted((at for at in range(len(words)) if cost[at] > 0), key=lambda at: -cost[at])
        return tuple(sorted(worst[:MOST_BLAMED]))

    def accuracy(self, rows: Iterable[tuple[Sequence[str], int]], classes: int | None = None) -> float:
        """Share of the rows (a text and its class) whose likeliest class, or of the first ``classes``, is right.

        Args:
            rows: one at least.
        """
        right = []
        for words, wanted in rows:
            chances = self.probabilities(words)[:classes]
            right.append(chances.index(max(chances)) == wanted)
        return sum(right) / len(right)

    def to_json(self) -> Any:
        return {"bias": self.bias, "weights": self.weights}

    @classmethod
    def from_json(cls, saved: Any) -> NgramJudge:
        return cls(saved["bias"], saved["weights"])
