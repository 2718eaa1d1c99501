"""Forward and backward sums in probability space, over the states that have a probability: for a CPU.

Before the first word there is one state; a word that is written already leads each state to one other. So a step visits
only the transitions (arcs) that have a probability, of all rows at once, and each costs a product where log space
takes an exponential. Which they are is read back, so this is not for a GPU. It is not differentiable.

The states are normalised after every word (Rabiner 1989), in float64. What is below 1e-308 of them is lost. The rows in
which that could matter are reported: those with factors below TINY whose language is less likely than LEAST, when words
and states each add up to 1. In all others nothing is lost, or less than 1e-200 of the probability of the language.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dlmctl.control.automata.arcs import Arcs
from dlmctl.control.automata.sums import log_sum
from dlmctl.control.automata.transitions import Automata

# The product of two factors that are not below this does not underflow.
TINY = 1e-150
# The log-probability of a language from which on it does not matter what underflows.
LEAST = math.log(1e-100)
# The number of transitions of an automaton from which on this is faster than log space, in spite of its more calls.
# None for never, as on a GPU.
TRANSITIONS_CPU: int | None = 1 << 10


class Forward(NamedTuple):
    """The forward sums of a batch.

    Attributes:
        before: the probabilities of the states before each word, ``[B, S]``, which add up to 1.
        arcs: for each word, the arcs that have a probability.
        weights: for each word, the probabilities of the labels of the arcs, ``[B, W]``, where those of the classes add
            up to 1.
        norms: ``[B, N]``, the logarithms of what the probabilities of the classes added up to.
        log_p: ``[B]``, log-probability of the language.
        relative: ``[B]``, the same with ``weights`` for probabilities.
        lossy: ``[B]``, whether something may have underflowed.
    """

    before: list[Tensor]
    arcs: list[list[Arcs]]
    weights: tuple[Tensor, ...]
    norms: Tensor
    log_p: Tensor
    relative: Tensor
    lossy: Tensor

    @property
    def holds(self) -> Tensor:
        """Whether ``log_p`` is exact: ``[B]``."""
        return ~self.lossy | (self.relative >= LEAST)


def is_worth_scaling(scores: Tensor, automata: Automata) -> bool:
    """Whether to take these sums for class ``scores``: on a CPU, with large automata, if no gradient is asked for."""
    if TRANSITIONS_CPU is None or scores.device.type != "cpu" or scores.requires_grad:
        return False
    return automata.transitions >= TRANSITIONS_CPU


def forward_sums(scores: Tensor, automata: Automata, within: Tensor) -> Forward:
    """The forward sums for class log-probabilities ``scores [B, N, C]``; ``within [B, N]`` is true for words."""
    norms = log_sum(scores.double(), 2).clamp(min=torch.finfo(scores.dtype).min)
    log_weights = (automata.step_scores(scores) - norms[..., None]).transpose(0, 1).contiguous()
    weights = log_weights.exp()
    lossy = ((log_weights > -torch.inf) & (log_weights < math.log(TINY))).any(2).any(0)
    ends = (automata.ends == 0).double()
    states = torch.zeros_like(ends)
    states[:, 0] = 1.0
    relative = torch.zeros_like(ends[:, 0])
    before, arcs = list[Tensor](), list[list[Arcs]]()
    for at, is_word in enumerate(within.unbind(1)):
        before.append(states)
        arcs.append(automata.arcs(torch.where(is_word[:, None], states, 0.0), log_weights[at]))
        stepped = _step(states, arcs[at], weights[at])
        total = stepped.sum(1)
        states = torch.where(is_word[:, None], stepped / _not_0(total)[:, None], states)
        relative = torch.where(is_word, relative + total.log(), relative)
        lossy = lossy | _is_tiny(states)
    relative = relative + (states * ends).sum(1).log()
    log_p = relative + torch.where(within, norms, 0.0).sum(1)
    return Forward(before, arcs, weights.unbind(0), norms, log_p, relative, lossy)


def without_words(forward: Forward, automata: Automata) -> tuple[Tensor, Tensor]:
    """Log-probability ``[B, N, W]`` of the text except for each word, by label, less that of the language.

    Also returns whether it is exact: ``[B]``. -inf for labels without an arc.
    """
    after = (automata.ends == 0).double()
    lossy, ratios = forward.lossy, list[Tensor]()
    words = zip(forward.before, forward.arcs, forward.weights, strict=True)
    for states, arcs, weights in reversed(list(words)):
        without = torch.zeros_like(weights)
        stepped = torch.zeros_like(after)
        for each in arcs:
            width = each.target.shape[1]
            following = after.view(-1).index_select(0, each.target.view(-1)).view(-1, width)
            terms = following * weights.view(-1, width).index_select(0, each.label)
            stepped.view(-1).index_add_(0, each.source, terms.sum(1))
            before = states.view(-1).index_select(0, each.source)
            without.view(-1, width).index_add_(0, each.label, following.mul_(before[:, None]))
        top = stepped.amax(1, keepdim=True)
        # A row that has no word here keeps its states.
        after = torch.where(top > 0, stepped / _not_0(top), after)
        lossy = lossy | _is_tiny(after)
        ratios.append((without / _not_0((without * weights).sum(1, keepdim=True))).log())
    log_ratio = torch.stack(ratios[::-1], 1) - forward.norms[..., None]
    return log_ratio, ~lossy | (forward.relative >= LEAST)


def _step(states: Tensor, arcs: list[Arcs], weights: Tensor) -> Tensor:
    """The probabilities ``[B, S]`` of the states after a word, from those before it; 0 for the sink."""
    stepped = torch.zeros_like(states)
    for each in arcs:
        terms = weights.view(-1, each.target.shape[1]).index_select(0, each.label)
        terms *= states.view(-1).index_select(0, each.source)[:, None]
        stepped.view(-1).index_add_(0, each.target.view(-1), terms.view(-1))
    stepped[:, -1] = 0.0
    return stepped


def _is_tiny(values: Tensor) -> Tensor:
    """Whether any of the last dimension is so small that a product with it may underflow."""
    return ((values > 0) & (values < TINY)).any(-1)


def _not_0(values: Tensor) -> Tensor:
    """Sums to divide by: 0, where nothing is possible, becomes the smallest number."""
    return values.clamp(min=torch.finfo(values.dtype).tiny)
