"""Inference over all words of a text at once: transitions as matrices, multiplied pair by pair like a tree.

Word by word, a text of N words takes some calls a word, and on a GPU each is a launch. But to read words is to multiply
matrices, [state before, state after], which may be done in any grouping: neighbours first, then neighbours of these,
and down again, 2 log2(N) steps for all positions (parallel prefix: Blelloch 1990; for inference in chains Sarkka and
Garcia-Fernandez 2019, arXiv 1905.13002). All of it is in logarithms and each sum has its own maximum, so that it is as
exact as word by word. It costs S^3 for each word where those cost S C, so it is for few states.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.control.automata.sums import log_sum

# Numbers in the largest tensor up to which all words are read at once: on a CPU, where each costs time, and on a GPU,
# where launches do (512 MiB in float32).
MOST_CPU, MOST = 1 << 15, 1 << 27
# No table of sets is made for more states than this.
MOST_STATES = 128


class Sets(NamedTuple):
    """Which classes lead from each state to each other one.

    Attributes:
        member: ``[B, G, K]``, the classes of each set; the number of classes stands for none. The last set is empty.
        leading: ``[B, S * S]``, the set that leads from a state to another.
        unchanged: ``[S, S]``, the matrix that changes nothing: 0 on the diagonal, else -inf.
    """

    member: Tensor
    leading: Tensor
    unchanged: Tensor

    def fit(self, words: int) -> bool:
        """Whether texts of so many words are read at once, by what it costs; the one rule that chooses the way."""
        rows, sets, most = self.member.shape
        numbers = rows * _power(words) * max(len(self.unchanged) ** 3 // 2, sets * most)
        return numbers <= (MOST_CPU if self.member.device.type == "cpu" else MOST)

    def matrices(self, scores: Tensor, within: Tensor, best: bool = False) -> Tensor:
        """``[B, P, S, S]``: log-probability to get from state to state by each word, or that of the best class.

        ``scores [B, N, C]`` are those of the classes. P is the next power of 2 from N, at least 2; where no word is
        ``within [B, N]``, no state changes.
        """
        size, states = _power(scores.shape[1]), len(self.unchanged)
        more = size - scores.shape[1]
        # One class and some places more, of which there is nothing.
        padded = F.pad(scores, (0, 1, 0, more), value=-torch.inf)
        members = padded.gather(2, self.member.flatten(1)[:, None].expand(-1, size, -1))
        members = members.unflatten(2, self.member.shape[1:])
        sums = members.amax(3) if best else log_sum(members, 3)
        ways = sums.gather(2, self.leading[:, None].expand(-1, size, -1)).unflatten(2, (states, states))
        return torch.where(F.pad(within, (0, more))[..., None, None], ways, self.unchanged.to(ways.dtype))


def both_ways(matrices: Tensor, ends: Tensor, unchanged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``[B, P, S]``, log-probability to be in each state before each word, beginning in state 0; ``[B, P, S]``, to be
    accepted from each state behind it; ``[B]``, to be accepted at all. Differentiable.

    Args:
        matrices: ``[B, P, S, S]``.
        ends: ``[B, S]``, 0 where a text may end, else -inf.
    """
    tree = [matrices]
    while tree[-1].shape[1] > 2:
        tree.append(log_sum(_products(tree[-1]), 3))
    begins = unchanged[0].expand_as(ends)
    # Of each part of the text: what is before it, and what is behind it.
    around = torch.stack((begins, ends), 1)[:, None]
    for parts in reversed(tree):
        # Through the left half forwards and through the right half backwards, to the middle.
        halves = torch.stack((parts[:, ::2].mT, parts[:, 1::2]), 2)
        middle = log_sum(halves + around[..., None, :], 4)
        (before, behind), (reached, left) = around.unbind(2), middle.unbind(2)
        around = torch.stack((before, left, reached, behind), 2).unflatten(2, (2, 2)).flatten(1, 2)
    before, behind = around.unbind(2)
    return before, behind, log_sum(matrices[:, 0, 0] + behind[:, 0], 1)


def log_total(matrices: Tensor, ends: Tensor) -> Tensor:
    """``[B]``: log-probability to be accepted at all; differentiable. Arguments as of ``both_ways``."""
    while matrices.shape[1] > 1:
        matrices = log_sum(_products(matrices), 3)
    return log_sum(matrices[:, 0, 0] + ends, 1)


def best_states(matrices: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """``[B]``, the logarithm of the best way to be accepted, and ``[B, P + 1]``, its states between the words.

    Arguments as of ``both_ways``, the matrices made with ``best``.
    """
    size, states = matrices.shape[1:3]
    middles: list[Tensor] = []
    while matrices.shape[1] > 1:
        matrices, middle = _products(matrices).max(3)
        middles.append(middle.flatten(2))
    best, last = (matrices[:, 0, 0] + ends).max(1)
    found = F.pad(last[:, None], (size, 0))
    for level, middle in reversed(list(enumerate(middles, start=1))):
        width = 1 << level
        # From the states at both ends of each part, the state in its middle.
        pair = found[:, width::width].add(found[:, :-1:width], alpha=states)
        found[:, width // 2 :: width] = middle.gather(2, pair[..., None])[..., 0]
    return best, found


def _products(matrices: Tensor) -> Tensor:
    """``[B, P / 2, S, S, S]``: ways through each pair of matrices, by the states before, between and behind them."""
    return matrices[:, ::2, :, :, None] + matrices[:, 1::2, None]


def _power(words: int) -> int:
    return max(2, 1 << (words - 1).bit_length())
