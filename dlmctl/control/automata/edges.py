"""The automata of a batch as edge lists: from a state to another one, by any class of a group."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.control.automata.arcs import Arcs
from dlmctl.control.automata.dfa import DEAD, Ints
from dlmctl.control.automata.sums import gathered, scatter_log_sum, scatter_top, weights_of
from dlmctl.diffusion.walks import drawn


class Edges(NamedTuple):
    """The automata of a batch as edge lists; as ``Tables``, but a step costs the number of edges.

    Attributes:
        classes: ``[B, V]``, the class of each token.
        ends: ``[B, S]``, 0 where a text may end, else -inf.
        source, target, group: ``[B, E]``, the states of each edge, and the group (set) of classes that label it; by
            source.
        first: ``[B, S + 1]``, the first edge of each state.
        member, of: ``[B, M]``, the memberships: a class, and a group that it is in.
        groups: the number of groups; the last one is empty, for rows with fewer edges than others.
        width: the number of classes C.
    """

    classes: Tensor
    ends: Tensor
    source: Tensor
    target: Tensor
    group: Tensor
    first: Tensor
    member: Tensor
    of: Tensor
    groups: int
    width: int

    @property
    def transitions(self) -> int:
        return self.source.shape[1]

    def step_scores(self, scores: Tensor, best: bool = False) -> Tensor:
        values = gathered(scores, self.member)
        index = self.of[:, None].expand_as(values)
        by_group = scatter_top(values, index, self.groups) if best else scatter_log_sum(values, index, self.groups)
        # The last group belongs to the padding of the edges, which must have probability 0.
        return torch.cat([by_group[..., :-1], torch.full_like(by_group[..., -1:], -torch.inf)], -1)

    def step_backward(self, scores: Tensor, backward: Tensor, best: bool) -> Tensor:
        terms, states = scores.gather(1, self.group) + backward.gather(1, self.target), backward.shape[1]
        return scatter_top(terms, self.source, states) if best else scatter_log_sum(terms, self.source, states)

    def step_forward(self, scores: Tensor, forward: Tensor) -> Tensor:
        return scatter_log_sum(self.leaving(forward, scores), self.target, forward.shape[1])

    def leaving(self, before: Tensor, scores: Tensor) -> Tensor:
        return gathered(before, self.source) + gathered(scores, self.group)

    def moved(self, states: Tensor, shares: Tensor, start: Tensor) -> Tensor:
        return start.scatter_add(1, self.target, states.gather(1, self.source) * shares)

    def arcs(self, forward: Tensor, scores: Tensor) -> list[Arcs]:
        states, groups = forward.shape[1], scores.shape[1]
        alive = forward.view(-1).nonzero()[:, 0]
        row = alive // states
        count = self.first.diff(dim=1)[row, alive - row * states]
        # The edges of a state follow each other.
        start = self.first[row, alive - row * states] - count.cumsum(0) + count
        edge = start.repeat_interleave(count)
        edge += torch.arange(len(edge), device=edge.device)
        row = row.repeat_interleave(count)
        label = row * groups + _of_rows(self.group, row, edge)
        at = (scores.view(-1).index_select(0, label) > -torch.inf).nonzero()[:, 0]
        source, row, edge, label = (
            ids.index_select(0, at) for ids in (alive.repeat_interleave(count), row, edge, label)
        )
        target = row * states + _of_rows(self.target, row, edge)
        # 32 bits are faster to look up, and enough for any batch.
        return [Arcs(source, target[:, None].int(), label)]

    def without_word(self, forward: Tensor, reached: Tensor) -> Tensor:
        terms = gathered(forward, self.source) + reached
        return scatter_log_sum(terms, self.group[:, None].expand_as(terms), self.groups)

    def per_class(self, values: Tensor) -> Tensor:
        members = gathered(values, self.of)
        return scatter_log_sum(members, self.member[:, None].expand_as(members), self.width)

    def best_classes(self, states: Tensor, scores: Tensor) -> Tensor:
        best = gathered(scores, self.member).masked_fill(~self._members_along(states), -torch.inf).argmax(2)
        return self.member.gather(1, best)

    def classes_along(self, states: Tensor) -> Tensor:
        is_member = self._members_along(states).to(torch.uint8)
        index = self.member[:, None].expand_as(is_member)
        return scatter_top(is_member, index, self.width, 0).bool()

    def _members_along(self, states: Tensor) -> Tensor:
        """The memberships ``[B, N, M]`` in the groups that lead along the path ``states [B, N + 1]``."""
        # Edges are in the order of their sources, and those of a source in that of their targets.
        count = self.ends.shape[1]
        edge = torch.searchsorted(self.source * count + self.target, states[:, :-1] * count + states[:, 1:])
        group = self.group.gather(1, edge.clamp(max=self.transitions - 1))
        return self.of[:, None] == group[..., None]

    def best_step(self, state: Tensor, scores: Tensor, step_scores: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
        terms = step_scores.gather(1, self.group) + backward.gather(1, self.target)
        edge = terms.masked_fill(self.source != state[:, None], -torch.inf).argmax(1, keepdim=True)
        in_group = self.of == self.group.gather(1, edge)
        member = scores.gather(1, self.member).masked_fill(~in_group, -torch.inf).argmax(1, keepdim=True)
        return self.member.gather(1, member)[:, 0], self.target.gather(1, edge)[:, 0]

    def drawn_step(self, state: Tensor, scores: Tensor, backward: Tensor, uniform: Tensor) -> Tensor:
        # Only the edges of these states, which are in the order of the states that they lead to.
        start, end = (self.first.gather(1, at[:, None]) for at in (state, state + 1))
        edge = start + torch.arange(max(1, int((end - start).max())), device=state.device)
        is_edge, edge = edge < end, edge.clamp(max=self.transitions - 1)
        group, target = self.group.gather(1, edge), self.target.gather(1, edge)
        terms = scores.gather(1, group) + backward.gather(1, target)
        weights = weights_of(terms.masked_fill(~is_edge, -torch.inf))
        return target.gather(1, drawn(weights, uniform)[:, None])[:, 0]

    def drawn_steps(self, shares: Tensor, uniform: Tensor) -> Tensor:
        sums = F.pad(shares.double().cumsum(2), (1, 0))
        start, end = (gathered(sums, edges) for edges in (self.first[:, :-1], self.first[:, 1:]))
        # Below the sum of the edges of the state, whatever the rounding.
        threshold = torch.minimum(start + uniform[..., None] * (end - start), end.nextafter(torch.zeros_like(end)))
        edge = torch.searchsorted(sums[..., 1:].contiguous(), threshold, right=True)
        return self.target[:, None].expand_as(shares).gather(2, edge.clamp(max=self.transitions - 1))


def _of_rows(values: Tensor, row: Tensor, at: Tensor) -> Tensor:
    """``values[row, at]`` of ``[B, M]``; if all rows are one tensor, it is not copied."""
    if values.stride(0) == 0:
        return values[0].index_select(0, at)
    return values.view(-1).index_select(0, row * values.shape[1] + at)


class EdgeList(NamedTuple):
    """The edges of one automaton; attributes as in ``Edges``."""

    source: Ints
    target: Ints
    group: Ints
    member: Ints
    of: Ints

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of edges, memberships and groups."""
        return len(self.source), len(self.member), int(self.of.max(initial=-1)) + 1


def edges_of(table: Ints) -> EdgeList:
    """The edges of a table, and the distinct groups of classes that label them."""
    source, symbol = np.nonzero(table != DEAD)
    pairs, edge = np.unique(source * len(table) + table[source, symbol], return_inverse=True)
    # Groups are identified by a sum of random numbers, one for each class: a collision among 2^63 is very unlikely.
    weights = np.random.default_rng(0).integers(0, 1 << 62, size=(table.shape[1],))
    hashes: Ints = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(hashes, edge, weights[symbol])
    _, first_edge, group = np.unique(hashes, return_index=True, return_inverse=True)
    # The members of a group are listed by its first edge.
    group_listed: Ints = np.full(len(pairs), -1)
    group_listed[first_edge] = np.arange(len(first_edge))
    is_listed = group_listed[edge] >= 0
    return EdgeList(pairs // len(table), pairs % len(table), group, symbol[is_listed], group_listed[edge][is_listed])
