"""Inference over all words of a text at once: transition matrices, multiplied pairwise in a tree.

Word by word, a text of N words takes several calls per word, on a GPU each with a kernel launch. But reading words is
multiplying matrices [state before, state after], and matrix products are associative: a tree, up and down, takes
2 log2(N) steps for all positions (parallel prefix: Blelloch 1990; for inference in chains Sarkka and Garcia-Fernandez
2019, arXiv 1905.13002). Everything is computed in log space, each sum with its own maximum, so it is as accurate as
word by word. It costs S^3 per word instead of S C, so it is for few states.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.control.automata.sums import log_sum

# All words are processed at once if the largest tensor has at most this many numbers: on a CPU, where each number costs
# time, and on a GPU, where launches do (512 MiB in float32).
MOST_CPU, MOST = 1 << 15, 1 << 27
# Most states for which sets of classes are computed.
MOST_STATES = 128


def most_numbers(device: torch.device) -> int:
    """The most numbers in the largest tensor of inference over several words at once."""
    return MOST_CPU if device.type == "cpu" else MOST


class Sets(NamedTuple):
    """The sets of classes that lead from state to state.

    Attributes:
        member: ``[B, G, K]``, the classes in each set, padded with C (the number of classes). The last set is empty.
        set_between: ``[B, S * S]``, the set that leads from one state to another.
        identity: ``[S, S]``, the log of the identity matrix: 0 on the diagonal, else -inf.
    """

    member: Tensor
    set_between: Tensor
    identity: Tensor

    def fit(self, words: int) -> bool:
        """Whether texts of ``words`` words are processed at once, judged by its cost."""
        rows, sets, set_size = self.member.shape
        numbers = rows * _power_of_two(words) * max(len(self.identity) ** 3 // 2, sets * set_size)
        return numbers <= most_numbers(self.member.device)

    def matrices(self, scores: Tensor, within: Tensor, best: bool = False) -> Tensor:
        """The transition matrices ``[B, P, S, S]`` in log space: log-probability to get from state to state by a word.

        P is the next power of 2 from N, at least 2.

        Args:
            scores: ``[B, N, C]``, log-probabilities of the classes.
            within: ``[B, N]``, whether there is a word; elsewhere the matrix is the identity.
            best: take the best class in place of the sum.
        """
        size, states = _power_of_two(scores.shape[1]), len(self.identity)
        padding = size - scores.shape[1]
        # Pads also the classes by one, the class that the sets are padded with.
        padded = F.pad(scores, (0, 1, 0, padding), value=-torch.inf)
        members = padded.gather(2, self.member.flatten(1)[:, None].expand(-1, size, -1))
        members = members.unflatten(2, self.member.shape[1:])
        set_scores = members.amax(3) if best else log_sum(members, 3)
        index = self.set_between[:, None].expand(-1, size, -1)
        matrices = set_scores.gather(2, index).unflatten(2, (states, states))
        return torch.where(F.pad(within, (0, padding))[..., None, None], matrices, self.identity.to(matrices.dtype))


def forward_backward(matrices: Tensor, ends: Tensor, identity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Forward and backward log-probabilities of all words, and the log-probability of acceptance; differentiable.

    Args:
        matrices: ``[B, P, S, S]``.
        ends: ``[B, S]``, 0 where a text may end, else -inf.
        identity: ``[S, S]``, as in ``Sets``.

    Returns:
        ``[B, P, S]``, log-probability to be in each state before each word, from state 0; ``[B, P, S]``, to be
        accepted from each state after each word; ``[B]``, to be accepted.
    """
    tree = [matrices]
    while tree[-1].shape[1] > 2:
        tree.append(log_sum(_products(tree[-1]), 3))
    starts = identity[0].expand_as(ends)
    # For each segment of the text: forward up to its start, backward from its end.
    around = torch.stack((starts, ends), 1)[:, None]
    for segments in reversed(tree):
        # Forward through the left half and backward through the right half, to the middle.
        halves = torch.stack((segments[:, ::2].mT, segments[:, 1::2]), 2)
        middle = log_sum(halves + around[..., None, :], 4)
        (forward, backward), (forward_middle, backward_middle) = around.unbind(2), middle.unbind(2)
        quarters = torch.stack((forward, backward_middle, forward_middle, backward), 2)
        around = quarters.unflatten(2, (2, 2)).flatten(1, 2)
    forward, backward = around.unbind(2)
    return forward, backward, log_sum(matrices[:, 0, 0] + backward[:, 0], 1)


def log_total(matrices: Tensor, ends: Tensor) -> Tensor:
    """Log-probability of acceptance ``[B]``; differentiable. Arguments as for ``forward_backward``."""
    while matrices.shape[1] > 1:
        matrices = log_sum(_products(matrices), 3)
    return log_sum(matrices[:, 0, 0] + ends, 1)


def best_states(matrices: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability ``[B]`` of the best accepting path, and its states ``[B, P + 1]`` between the words.

    Arguments as for ``forward_backward``, with matrices computed with ``best``.
    """
    size, states = matrices.shape[1:3]
    middles: list[Tensor] = []
    while matrices.shape[1] > 1:
        matrices, middle = _products(matrices).max(3)
        middles.append(middle.flatten(2))
    best, last = (matrices[:, 0, 0] + ends).max(1)
    path = F.pad(last[:, None], (size, 0))
    for level, middle in reversed(list(enumerate(middles, start=1))):
        width = 1 << level
        # The states at both ends of each segment determine the state in its middle.
        pair = path[:, width::width].add(path[:, :-1:width], alpha=states)
        path[:, width // 2 :: width] = middle.gather(2, pair[..., None])[..., 0]
    return best, path


def _products(matrices: Tensor) -> Tensor:
    """The terms ``[B, P / 2, S, S, S]`` of the products of neighbours: by the state before, between and after them."""
    return matrices[:, ::2, :, :, None] + matrices[:, 1::2, None]


def _power_of_two(words: int) -> int:
    return max(2, 1 << (words - 1).bit_length())
