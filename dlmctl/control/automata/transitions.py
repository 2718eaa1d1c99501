"""The automata of a batch as tensors, and the steps of inference over one word or token: with a table, or with edges.

A table ``[S, C]`` is quick while it is small. An automaton over tokens has thousands of states and hundreds of classes,
but from each state few states are reached, and the same sets of classes lead from state to state all over it: then the
classes are summed once for each set, at all positions together, and a step looks at the edges only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlmctl.control.automata.dfa import DEAD, Automaton, Ints
from dlmctl.control.automata.scan import MOST_STATES, Sets
from dlmctl.control.automata.sums import log_sum, scatter_log_sum, scatter_top

# Cells of a table from which on edges are quicker.
LARGE = 1 << 16


class Tables(NamedTuple):
    """The automata of a batch.

    Attributes:
        classes: ``[B, V]``, the class of each token.
        table: ``[B, S, C]``, where each state and class leads; what leads nowhere leads to the last state, and back.
        ends: ``[B, S]``, 0 where a text may end, else -inf.
        sets: for inference over all words at once; None of many states.
    """

    classes: Tensor
    table: Tensor
    ends: Tensor
    sets: Sets | None

    @property
    def width(self) -> int:
        """How many classes there are."""
        return self.table.shape[2]

    def summed(self, scores: Tensor, best: bool = False) -> Tensor:
        """What the steps take of the scores of classes ``[B, N, C]``: of the sum of ways, or of the best."""
        return scores

    def back(self, scores: Tensor, rest: Tensor, best: bool) -> Tensor:
        """``[B, S]``: from what each state is worth after a word, what it is worth before; ``scores [B, ...]``."""
        ways = scores[:, None] + rest.gather(1, self.table.flatten(1)).view_as(self.table)
        return ways.amax(2) if best else log_sum(ways, 2)

    def on(self, scores: Tensor, reached: Tensor) -> Tensor:
        """``[B, S]``: log-probability to be in each state after a word, from that before it."""
        ways = (reached[:, :, None] + scores[:, None]).flatten(1)
        return scatter_log_sum(ways, self.table.flatten(1), reached.shape[1])

    def between(self, reached: Tensor, after: Tensor) -> Tensor:
        """Log-probability of everything but each of some words, by what ``of_classes`` takes, of what is before them
        and after them ``[B, N, S]``."""
        index = self.table.flatten(1)[:, None].expand(-1, after.shape[1], -1)
        ways = after.gather(2, index).unflatten(2, self.table.shape[1:])
        return log_sum(reached[..., None] + ways, 2)

    def of_classes(self, values: Tensor) -> Tensor:
        """What ``between`` gave for every word ``[B, N, ...]``, for each class ``[B, N, C]``."""
        return values

    def step(self, state: Tensor, scores: Tensor, summed: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """The best class ``[B]`` to follow the states ``[B]``, by its score ``[B, C]`` and what is after it, and the
        state it leads to."""
        ways = self.table.gather(1, state[:, None, None].expand(-1, 1, self.width))[:, 0]
        chosen = (scores + after.gather(1, ways)).argmax(1)
        return chosen, ways.gather(1, chosen[:, None])[:, 0]

    def along(self, states: Tensor, scores: Tensor) -> Tensor:
        """The best class ``[B, N]`` from each state to the next of ``states [B, N + 1]``, by ``scores [B, N, C]``."""
        ways = self.table.gather(1, states[:, :-1, None].expand(-1, -1, self.width))
        return scores.masked_fill(ways != states[:, 1:, None], -torch.inf).argmax(2)


class Edges(NamedTuple):
    """The automata of a batch by their edges; as ``Tables``, but that a step costs the number of edges.

    Attributes:
        classes: ``[B, V]``.
        ends: ``[B, S]``.
        source, target, group: ``[B, E]``, the states of each edge and the set of the classes that lead along it.
        member, of: ``[B, M]``, a class and a set that it is in.
        groups: how many sets there are, the last of them empty, for rows with fewer edges than others.
        width: how many classes.
    """

    classes: Tensor
    ends: Tensor
    source: Tensor
    target: Tensor
    group: Tensor
    member: Tensor
    of: Tensor
    groups: int
    width: int

    def summed(self, scores: Tensor, best: bool = False) -> Tensor:
        index = self.of[:, None].expand(-1, scores.shape[1], -1)
        values = scores.gather(2, self.member[:, None].expand_as(index))
        found = scatter_top(values, index, self.groups) if best else scatter_log_sum(values, index, self.groups)
        # What a row is filled up with leads nowhere.
        return torch.cat([found[..., :-1], torch.full_like(found[..., -1:], -torch.inf)], -1)

    def back(self, scores: Tensor, rest: Tensor, best: bool) -> Tensor:
        ways = scores.gather(1, self.group) + rest.gather(1, self.target)
        states = rest.shape[1]
        return scatter_top(ways, self.source, states) if best else scatter_log_sum(ways, self.source, states)

    def on(self, scores: Tensor, reached: Tensor) -> Tensor:
        ways = reached.gather(1, self.source) + scores.gather(1, self.group)
        return scatter_log_sum(ways, self.target, reached.shape[1])

    def between(self, reached: Tensor, after: Tensor) -> Tensor:
        source, target, group = (
            part[:, None].expand(-1, after.shape[1], -1) for part in (self.source, self.target, self.group)
        )
        return scatter_log_sum(reached.gather(2, source) + after.gather(2, target), group, self.groups)

    def of_classes(self, values: Tensor) -> Tensor:
        index = self.member[:, None].expand(-1, values.shape[1], -1)
        return scatter_log_sum(values.gather(2, self.of[:, None].expand_as(index)), index, self.width)

    def step(self, state: Tensor, scores: Tensor, summed: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        ways = summed.gather(1, self.group) + after.gather(1, self.target)
        edge = ways.masked_fill(self.source != state[:, None], -torch.inf).argmax(1, keepdim=True)
        within = self.of == self.group.gather(1, edge)
        member = scores.gather(1, self.member).masked_fill(~within, -torch.inf).argmax(1, keepdim=True)
        return self.member.gather(1, member)[:, 0], self.target.gather(1, edge)[:, 0]


Automata = Tables | Edges


def stacked(automata: Sequence[Automaton], device: torch.device | str = "cpu") -> Automata:
    """One automaton for each row, as tensors padded to the largest."""
    distinct = list({id(automaton): automaton for automaton in automata}.values())
    states = max(len(automaton.table) for automaton in distinct) + 1
    width = max(automaton.table.shape[1] for automaton in distinct)
    numbers = {id(automaton): number for number, automaton in enumerate(distinct)}
    rows = [numbers[id(automaton)] for automaton in automata]
    if states * width < LARGE:
        classes, table, ends = _rows([_padded(one, states, width) for one in distinct], rows, device)
        return Tables(classes, table, ends, _sets(distinct, states, width, rows, device))
    found = [_edges(one.table) for one in distinct]
    edges, members, groups = _most(found)
    parts = list[tuple[npt.NDArray[Any], ...]]()
    for one, edged in zip(distinct, found, strict=True):
        token_classes, _, may_end = _padded(one, states, 1)
        # States beyond those of an automaton are reached by no edge, and the last set of classes is empty.
        source, target = (_filled(part, edges, states - 1) for part in (edged.source, edged.target))
        group, of = _filled(edged.group, edges, groups), _filled(edged.of, members, groups)
        parts.append((token_classes, may_end, source, target, group, _filled(edged.member, members, 0), of))
    classes, may_ends, sources, targets, sets, member, sets_of = _rows(parts, rows, device)
    return Edges(classes, may_ends, sources, targets, sets, member, sets_of, groups + 1, width)


def _sets(
    automata: Sequence[Automaton], states: int, width: int, rows: Sequence[int], device: torch.device | str
) -> Sets | None:
    """The sets of classes that lead from state to state, each padded to the largest; None of many."""
    if states > MOST_STATES:
        return None
    found = [_edges(one.table) for one in automata]
    groups = _most(found)[2]
    most = max(int(np.bincount(one.of).max(initial=1)) for one in found)
    if (groups + 1) * most > LARGE:
        return None
    parts = list[tuple[npt.NDArray[Any], ...]]()
    for one in found:
        members, leading = np.full((groups + 1, most), width), np.full((states, states), groups)
        order, sizes = np.argsort(one.of, kind="stable"), np.bincount(one.of)
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        members[one.of[order], place] = one.member[order]
        leading[one.source, one.target] = one.group
        parts.append((members, leading.reshape(-1)))
    unchanged = torch.full((states, states), -torch.inf, device=device).fill_diagonal_(0.0)
    member, leading_sets = _rows(parts, rows, device)
    return Sets(member, leading_sets, unchanged)


def _most(found: Sequence[_Edges]) -> tuple[int, int, int]:
    """The most edges, memberships and sets of several automata."""
    edges, members, groups = (max(sizes) for sizes in zip(*(one.sizes for one in found), strict=True))
    return edges, members, groups


def _rows(
    parts: Sequence[tuple[npt.NDArray[Any], ...]], rows: Sequence[int], device: torch.device | str
) -> list[Tensor]:
    columns = [[torch.from_numpy(part).to(device) for part in one] for one in zip(*parts, strict=True)]
    if len(parts) == 1:  # one copy is enough
        return [one[0].expand(len(rows), *one[0].shape) for one in columns]
    return [torch.stack([one[row] for row in rows]) for one in columns]


def _padded(automaton: Automaton, states: int, width: int) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    table = np.full((states, width), states - 1)
    rows, columns = automaton.table.shape[0], min(width, automaton.table.shape[1])
    found = automaton.table[:, :columns]
    table[:rows, :columns] = np.where(found == DEAD, states - 1, found)
    ends = np.full(states, -np.inf, dtype=np.float32)
    ends[:rows][automaton.accepting] = 0.0
    return automaton.classes, table, ends


class _Edges(NamedTuple):
    source: Ints
    target: Ints
    group: Ints
    member: Ints
    of: Ints

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Edges, memberships, sets."""
        return len(self.source), len(self.member), int(self.of.max(initial=-1)) + 1


def _edges(table: Ints) -> _Edges:
    """The edges of a table, and the sets of classes that lead along them, each set once."""
    source, symbol = np.nonzero(table != DEAD)
    pairs, edge = np.unique(source * len(table) + table[source, symbol], return_inverse=True)
    # Sets are told apart by a sum of random numbers, one for each class: among 2^63 two are hardly alike by chance.
    weights = np.random.default_rng(0).integers(0, 1 << 62, size=(table.shape[1],))
    sums: Ints = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(sums, edge, weights[symbol])
    _, first, group = np.unique(sums, return_index=True, return_inverse=True)
    of_first: Ints = np.full(len(pairs), -1)
    of_first[first] = np.arange(len(first))
    member = of_first[edge] >= 0
    return _Edges(pairs // len(table), pairs % len(table), group, symbol[member], of_first[edge][member])


def _filled(values: Ints, size: int, value: int) -> Ints:
    return np.concatenate([values, np.full(size - len(values), value)])
