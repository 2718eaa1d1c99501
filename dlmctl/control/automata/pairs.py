"""Words two by two, for half as many steps: for a GPU, where each call is a kernel launch.

Where two words lead an automaton depends on their classes, and many pairs of classes lead to the same states: where
words are counted, those with the same sum. These share a class of pairs, and the table of the automaton over classes of
pairs is read like one over classes of words. A pair may also be a word and nothing, or twice nothing, after the last
word.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.control.automata.dfa import OUTSIDE, Ints
from dlmctl.control.automata.scan import most_numbers
from dlmctl.control.automata.sums import gathered, log_sum, scatter_log_sum, scatter_top

# Words are read two by two if a step has at most this many transitions: never on a CPU, where each costs time, and on a
# GPU up to where they take longer than the launches that are saved.
MOST_CPU, MOST = 0, 1 << 22
# The largest table of pairs that is searched for classes.
MOST_CELLS = 1 << 23


def most_transitions(device: torch.device) -> int:
    """The most transitions of a batch in a step over two words."""
    return MOST_CPU if device.type == "cpu" else MOST


class Pairs(NamedTuple):
    """The pairs of words that the automata of a batch read; they end with words of class OUTSIDE, which stand for none.

    Attributes:
        table: ``[B, S, P]``, the next state for each state and class of pairs.
        of: ``[B, C * C]``, the class of each pair of classes.
        none: ``[C]``, log-probabilities of the classes where there is no word.
    """

    table: Tensor
    of: Tensor
    none: Tensor

    @property
    def width(self) -> int:
        """The number of classes of words C."""
        return len(self.none)

    def fit(self, words: int) -> bool:
        """Whether texts of ``words`` words are read by pairs: whether the largest tensor is small enough."""
        return self.of.numel() * ((words + 1) // 2) <= most_numbers(self.of.device)

    def scores(self, scores: Tensor, within: Tensor) -> Tensor:
        """Log-probabilities ``[B, N / 2, 2, C]`` of the classes of each pair of words, from those of the words.

        Args:
            scores: ``[B, N, C]``.
            within: ``[B, N]``, true for words.
        """
        missing = scores.shape[1] % 2
        words = F.pad(scores[..., OUTSIDE + 1 :], (OUTSIDE + 1, 0, 0, missing), value=-torch.inf)
        is_word = F.pad(within, (0, missing))[..., None]
        return torch.where(is_word, words, self.none.to(words.dtype)).unflatten(1, (-1, 2))

    def of_pairs(self, scores: Tensor, best: bool = False) -> Tensor:
        """Log-probabilities ``[B, N / 2, P]`` of the classes of pairs, or of the best pair of each, from ``scores``."""
        terms = self._both(scores)
        index, width = self.of[:, None].expand_as(terms), self.table.shape[2]
        return scatter_top(terms, index, width) if best else scatter_log_sum(terms, index, width)

    def per_word(self, values: Tensor, scores: Tensor) -> Tensor:
        """Log-probabilities of a text except for each word ``[B, N, C]``, from those except for each pair.

        Args:
            values: ``[B, N / 2, P]``.
            scores: as returned by ``scores``.
        """
        without_both = gathered(values, self.of).unflatten(2, (self.width, self.width))
        without_first = log_sum(without_both + scores[:, :, 1, None, :], 3)
        without_second = log_sum(without_both + scores[:, :, 0, :, None], 2)
        without_word = torch.stack((without_first, without_second), 2).flatten(1, 2)
        return F.pad(without_word[..., OUTSIDE + 1 :], (OUTSIDE + 1, 0), value=-torch.inf)

    def best_words(self, classes: Tensor, scores: Tensor) -> Tensor:
        """The best classes of words ``[B, N]`` in the classes of pairs ``[B, N / 2]``, by ``scores``."""
        is_other = self.of[:, None] != classes[..., None]
        best = self._both(scores).masked_fill(is_other, -torch.inf).argmax(2)
        return torch.stack((best // self.width, best % self.width), 2).flatten(1, 2)

    def _both(self, scores: Tensor) -> Tensor:
        """Log-probabilities ``[B, N / 2, C * C]`` of all pairs of classes."""
        return (scores[:, :, 0, :, None] + scores[:, :, 1, None, :]).flatten(2)


def pairs_of(table: Ints) -> tuple[Ints, Ints]:
    """The states ``[S, P]`` after each class of pairs, and the class ``[C * C]`` of each pair.

    Args:
        table: ``[S, C]``, the state after each class of words; the last state is a sink for missing transitions.
    """
    reading = table.copy()
    reading[:, OUTSIDE] = np.arange(len(table))
    after = reading[reading].reshape(len(table), -1)
    # Columns are compared by a sum of random numbers: a collision among 2^64 is very unlikely.
    weights = np.random.default_rng(0).integers(0, 1 << 62, size=len(table))
    _, first, of = np.unique(weights @ after, return_index=True, return_inverse=True)
    return np.ascontiguousarray(after[:, first]), of
