"""A judge of labelled text that shares nothing with the guide: a linear model of words, word pairs and rare words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

# Features of fewer texts are left out.
MIN_TEXTS = 3
STEPS, LEARNING_RATE, L2 = 200, 0.05, 2e-4
# Parts that weighted texts are split into to set the biases, and the penalty on what is added to them.
FOLDS, SHIFT_PENALTY = 2, 1e-3
# How many words and pairs are marked as evidence for a class, and how many words as evidence against it.
MAX_SPANS_FOR, MAX_WORDS_AGAINST = 3, 3
# The rarest words of a text, whose rarity is a feature.
RAREST = 3
NO_RANKS: Mapping[str, int] = {}


def features(words: Sequence[str], ranks: Mapping[str, int] = NO_RANKS) -> set[str]:
    """The distinct words and pairs of neighbours of a text, in lower case, and the rarity of its rarest words.

    Args:
        ranks: for each word of a vocabulary, about how many words are more frequent. The rarity of a word is the number
            of binary digits of its rank, as written or in lower case, whichever is more frequent. Without ranks there
            are no features of rarity.
    """
    lower = [word.lower() for word in words]
    rare = {name for name, _ in rarest(words, ranks)}
    return {*lower, *(f"{first} {second}" for first, second in pairwise(lower)), *rare}


def rarest(words: Sequence[str], ranks: Mapping[str, int]) -> list[tuple[str, int]]:
    """The rarity features of the rarest words of a text, each with the position of its word."""
    if not ranks:
        return []
    unknown = len(ranks)
    ranked = [
        (min(ranks.get(word, unknown), ranks.get(word.lower(), unknown)), at)
        for at, word in enumerate(words)
        if word[:1].isalpha()
    ]
    order = sorted(ranked, key=lambda pair: (-pair[0], pair[1]))[:RAREST]
    return [(f"rarest {number} {rank.bit_length()}", at) for number, (rank, at) in enumerate(order)]


@dataclass(frozen=True)
class NgramJudge:
    """Multinomial logistic regression on the presence of ``features``.

    Attributes:
        bias: a number for each class.
        weights: for each feature a weight for each class.
        ranks: as in ``features``: the ids of a model's words, whose vocabulary is sorted by frequency. Not saved.
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
        weights: Sequence[float] | None = None,
    ) -> NgramJudge:
        """Learn from clean texts and their classes, 0 to ``count`` - 1.

        Args:
            weights: how much each text counts, if not all count alike. The few texts of a rare class are learned by
                heart whatever they count, and others of the class are still missed. So the biases are then set on texts
                that were left out of learning.
        """
        bags = [sorted(features(text, ranks)) for text in texts]
        judge = cls._regression(bags, classes, count, weights)
        shifts = [0.0] * count if weights is None else cls._shifts(bags, classes, count, weights)
        bias = [round(value + shift, 2) for value, shift in zip(judge.bias, shifts, strict=True)]
        rounded = {name: [round(value, 1) for value in row] for name, row in judge.weights.items()}
        return cls(bias, {name: row for name, row in rounded.items() if any(row)}, ranks)

    @classmethod
    def _regression(
        cls,
        bags: Sequence[Sequence[str]],
        classes: Sequence[int],
        count: int,
        shares: Sequence[float] | None,
    ) -> NgramJudge:
        """A judge fitted to the features and the class of each text, by gradient descent."""
        import torch
        import torch.nn.functional as F

        seen = Counter(name for bag in bags for name in bag)
        index = {name: at for at, name in enumerate(sorted(name for name in seen if seen[name] >= MIN_TEXTS))}
        rows = [[index[name] for name in bag if name in index] for bag in bags]
        ids = torch.tensor([at for row in rows for at in row], dtype=torch.long)
        offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
        weights = torch.zeros(len(index), count, requires_grad=True)
        bias = torch.zeros(count, requires_grad=True)
        target, optimizer = torch.tensor(classes), torch.optim.Adam([weights, bias], lr=LEARNING_RATE)
        share = torch.ones(len(bags)) if shares is None else torch.tensor(shares)
        for _ in range(STEPS):
            scores = F.embedding_bag(ids, weights, offsets, mode="sum") + bias
            nats = F.cross_entropy(scores, target, reduction="none")
            loss = (nats * share).mean() + L2 * weights.square().sum()
            weights.grad, bias.grad = torch.autograd.grad(loss, [weights, bias])
            optimizer.step()
        return cls(bias.tolist(), dict(zip(index, weights.tolist(), strict=True)))

    @classmethod
    def _shifts(
        cls, bags: Sequence[Sequence[str]], classes: Sequence[int], count: int, shares: Sequence[float]
    ) -> list[float]:
        """What to add to the biases so that texts that were not learned from have, on average, as much of each class as
        they should; 0 for a class of a single text."""
        import torch
        import torch.nn.functional as F

        # Equal texts of a class are in the same part.
        rows = list(zip(classes, map(tuple, bags), strict=True))
        part_of = {row: number % FOLDS for number, row in enumerate(sorted(set(rows)))}
        scores = torch.zeros(len(bags), count)
        for part in range(FOLDS):
            left_out = [at for at, row in enumerate(rows) if part_of[row] == part]
            used = [at for at, row in enumerate(rows) if part_of[row] != part]
            judge = cls._regression(
                [bags[at] for at in used], [classes[at] for at in used], count, [shares[at] for at in used]
            )
            for at in left_out:
                scores[at] = torch.tensor(judge.scores(bags[at]))
        texts_of = Counter(label for label, _ in part_of)
        is_shifted = torch.tensor([texts_of[label] > 1 for label in range(count)])
        target, share = torch.tensor(classes), torch.tensor(shares)
        shifts = torch.zeros(count, requires_grad=True)
        optimizer = torch.optim.LBFGS([shifts], max_iter=50)

        def loss() -> torch.Tensor:
            nats = F.cross_entropy(scores + shifts * is_shifted, target, reduction="none")
            total = (nats * share).mean() + SHIFT_PENALTY * shifts.square().sum()
            (shifts.grad,) = torch.autograd.grad(total, [shifts])
            return total

        optimizer.step(loss)
        return (shifts * is_shifted).tolist()

    def scores(self, bag: Iterable[str]) -> list[float]:
        """The score of each class, given the features of a text."""
        rows = [self.weights[name] for name in bag if name in self.weights]
        return [sum(column) for column in zip(self.bias, *rows, strict=True)]

    def probabilities(self, words: Sequence[str]) -> list[float]:
        """The probability of each class, given the words of a text."""
        scores = self.scores(sorted(features(words, self.ranks)))
        top = max(scores)
        exponentials = [math.exp(score - top) for score in scores]
        return [value / sum(exponentials) for value in exponentials]

    def spans_for(self, words: Sequence[str], label: int) -> list[tuple[int, int]]:
        """First and last word, from 0, of the words and pairs that are the strongest evidence for a class, at most
        ``MAX_SPANS_FOR``."""
        lower = [word.lower() for word in words]
        spans = [(at, at) for at in range(len(words))] + [(at, at + 1) for at in range(len(words) - 1)]
        margins = []
        for start, end in spans:
            row = self.weights.get(" ".join(lower[start : end + 1]), ())
            others = [weight for at, weight in enumerate(row) if at != label]
            if others and row[label] > max(others):
                margins.append((max(others) - row[label], start, end))
        return sorted((start, end) for _, start, end in sorted(margins)[:MAX_SPANS_FOR])

    def words_against(self, words: Sequence[str], wanted: int, other: int) -> tuple[int, ...]:
        """The words that are the strongest evidence for the class ``other`` and against ``wanted``, at most
        ``MAX_WORDS_AGAINST``. The pairs and the rarity of a word count as well."""
        lower = [word.lower() for word in words]
        zeros = [0.0] * len(self.bias)
        cost = [0.0] * len(words)
        for at, word in enumerate(lower):
            single = self.weights.get(word, zeros)
            cost[at] += single[other] - single[wanted]
            if at:
                pair = self.weights.get(f"{lower[at - 1]} {word}", zeros)
                cost[at - 1] += pair[other] - pair[wanted]
                cost[at] += pair[other] - pair[wanted]
        for name, at in rarest(words, self.ranks):
            rare = self.weights.get(name, zeros)
            cost[at] += rare[other] - rare[wanted]
        worst = sorted((at for at in range(len(words)) if cost[at] > 0), key=lambda at: -cost[at])
        return tuple(sorted(worst[:MAX_WORDS_AGAINST]))

    def accuracy(self, rows: Iterable[tuple[Sequence[str], int]], classes: int | None = None) -> float:
        """Share of the rows (a text and its class) whose likeliest class is right.

        Args:
            rows: at least one.
            classes: consider only this many of the first classes.
        """
        correct = []
        for words, wanted in rows:
            probabilities = self.probabilities(words)[:classes]
            correct.append(probabilities.index(max(probabilities)) == wanted)
        return sum(correct) / len(correct)

    def to_json(self) -> Any:
        return {"bias": self.bias, "weights": self.weights}

    @classmethod
    def from_json(cls, saved: Any) -> NgramJudge:
        return cls(saved["bias"], saved["weights"])
