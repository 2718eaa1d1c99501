"""The automata of a batch as tensors, and the steps of inference over one word or token: with tables or with edges.

A table ``[S, C]`` is fast while it is small or full. An automaton over tokens has thousands of states and hundreds of
classes, but each state has few successors, and the same sets of classes label many edges: then the classes are summed
once for each set, at all positions together, and a step only visits the edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlmctl.control.automata.arcs import Arcs
from dlmctl.control.automata.dfa import DEAD, OUTSIDE, Automaton, Ints
from dlmctl.control.automata.edges import EdgeList, Edges, edges_of
from dlmctl.control.automata.pairs import MOST_CELLS, Pairs, most_transitions, pairs_of
from dlmctl.control.automata.scan import MOST_STATES, Sets, most_numbers
from dlmctl.control.automata.sums import log_sum, scatter_log_sum, weights_of
from dlmctl.diffusion.walks import drawn

# Edges are faster for a table of at least so many cells, if there are so many cells to each edge.
LARGE, SPARSE = 1 << 16, 2


class Tables(NamedTuple):
    """The automata of a batch as transition tables.

    Attributes:
        classes: ``[B, V]``, the class of each token.
        table: ``[B, S, C]``, the next state for each state and class; the last state is a sink for missing transitions.
        ends: ``[B, S]``, 0 where a text may end, else -inf.
        sets: for inference over all words at once; None if there are too many states.
        pairs: for inference over two words at a time; None if there are too many pairs, and for a CPU.
    """

    classes: Tensor
    table: Tensor
    ends: Tensor
    sets: Sets | None
    pairs: Pairs | None

    @property
    def width(self) -> int:
        """The number of classes C."""
        return self.table.shape[2]

    @property
    def transitions(self) -> int:
        """The number of transitions of a row, with those that are missing."""
        return self.table[0].numel()

    @property
    def target(self) -> Tensor:
        """The state after each transition: ``[B, T]``."""
        return self.table.flatten(1)

    @property
    def source(self) -> Tensor:
        """The state before each transition: ``[B, T]``."""
        states = torch.arange(self.table.shape[1], device=self.table.device)
        return states[:, None].expand_as(self.table).flatten(1)

    def step_scores(self, scores: Tensor, best: bool = False) -> Tensor:
        """The scores that steps take, from class scores ``[B, N, C]``: for sums over classes, or for the best class."""
        return scores

    def step_backward(self, scores: Tensor, backward: Tensor, best: bool) -> Tensor:
        """Backward log-probabilities ``[B, S]`` before a word with ``step_scores [B, ...]``, from those after it."""
        terms = scores[:, None] + backward.gather(1, self.target).view_as(self.table)
        return terms.amax(2) if best else log_sum(terms, 2)

    def step_forward(self, scores: Tensor, forward: Tensor) -> Tensor:
        """Forward log-probabilities ``[B, S]`` after a word with ``step_scores [B, ...]``, from those before it."""
        return scatter_log_sum(self.leaving(forward, scores), self.target, forward.shape[1])

    def leaving(self, before: Tensor, scores: Tensor) -> Tensor:
        """The sums ``[B, *, T]`` of ``before [B, *, S]`` and of ``step_scores [B, *, ...]``, for each transition."""
        return (before[..., None] + scores[..., None, :]).flatten(-2)

    def moved(self, states: Tensor, shares: Tensor, start: Tensor) -> Tensor:
        """Probabilities ``[B, S]`` of the states after a word, added to ``start``, from those before it.

        Args:
            states: ``[B, S]``, before the word.
            shares: ``[B, T]``, the probability of each transition, given the state before it.
        """
        return start.scatter_add(1, self.target, (states[..., None] * shares.view_as(self.table)).flatten(1))

    def arcs(self, forward: Tensor, scores: Tensor) -> list[Arcs]:
        """The transitions by a word with ``step_scores [B, ...]``, from the states with a probability in ``forward``.

        Where more than one class is possible, they are those of all classes. Waits for a GPU.
        """
        states, width = self.table.shape[1:]
        alive = forward.view(-1).nonzero()[:, 0]
        row = alive // states
        # The first state of the row; an automaton that is the same for all rows is not copied.
        start = row * states
        table, state = (
            (self.table[0], alive - start) if self.table.stride(0) == 0 else (self.table.flatten(0, 1), alive)
        )
        arcs = list[Arcs]()
        is_open = ((scores > -torch.inf).sum(1) > 1).index_select(0, row)
        if len(at := is_open.nonzero()[:, 0]):
            target = table.index_select(0, state.index_select(0, at)).add_(start.index_select(0, at)[:, None])
            # 32 bits are faster to look up, and enough for any batch.
            arcs.append(Arcs(alive.index_select(0, at), target.int(), row.index_select(0, at)))
        if len(at := (~is_open).nonzero()[:, 0]):
            only_class = scores.argmax(1).index_select(0, row)
            cell, label = ((ids * width + only_class).index_select(0, at) for ids in (state, row))
            target = table.view(-1).index_select(0, cell).add_(start.index_select(0, at))
            arcs.append(Arcs(alive.index_select(0, at), target[:, None], label))
        return arcs

    def without_word(self, forward: Tensor, reached: Tensor) -> Tensor:
        """Log-probability of the text except for each word, ``[B, N, ...]``; ``per_class`` maps it to classes.

        Args:
            forward: ``[B, N, S]``, before each word.
            reached: ``[B, N, T]``, backward after each word, at the ``target`` of each transition.
        """
        return log_sum(forward[..., None] + reached.unflatten(2, self.table.shape[1:]), 2)

    def per_class(self, values: Tensor) -> Tensor:
        """The result of ``without_word``, ``[B, N, ...]``, for each class: ``[B, N, C]``."""
        return values

    def best_step(self, state: Tensor, scores: Tensor, step_scores: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
        """The best class ``[B]`` after the states ``[B]``, and the state ``[B]`` it leads to.

        Args:
            scores: ``[B, C]``, of the classes.
            step_scores: ``[B, ...]``, with ``best``.
            backward: ``[B, S]``, after the word.
        """
        successors = self.table.gather(1, state[:, None, None].expand(-1, 1, self.width))[:, 0]
        best_class = (scores + backward.gather(1, successors)).argmax(1)
        return best_class, successors.gather(1, best_class[:, None])[:, 0]

    def best_classes(self, states: Tensor, scores: Tensor) -> Tensor:
        """The best classes ``[B, N]`` along the path ``states [B, N + 1]``, by ``scores [B, N, C]``."""
        return scores.masked_fill(~self.classes_along(states), -torch.inf).argmax(2)

    def drawn_step(self, state: Tensor, scores: Tensor, backward: Tensor, uniform: Tensor) -> Tensor:
        """The state ``[B]`` after the states ``[B]`` and a word, drawn with ``uniform`` numbers ``[B]``.

        By the probabilities of the states, in their order, so that equal automata in another form draw the same.

        Args:
            scores: the ``step_scores [B, ...]`` of the word.
            backward: ``[B, S]``, after the word.
        """
        successors = self.table.gather(1, state[:, None, None].expand(-1, 1, self.width))[:, 0]
        terms = scores + backward.gather(1, successors)
        return drawn(torch.zeros_like(backward).scatter_add(1, successors, weights_of(terms)), uniform)

    def drawn_steps(self, shares: Tensor, uniform: Tensor) -> Tensor:
        """As ``drawn_step``, from every state and for every word: ``[B, N, S]``.

        Args:
            shares: ``[B, N, T]``, the probability of each transition, given the state before it.
            uniform: ``[B, N]``.
        """
        targets, order = self.table.sort(dim=2, stable=True)
        by_target = shares.unflatten(2, self.table.shape[1:]).gather(3, _for_words(order, shares))
        found = drawn(by_target, uniform[..., None].expand(by_target.shape[:3]))
        return _for_words(targets, shares).gather(3, found[..., None])[..., 0]

    def classes_along(self, states: Tensor) -> Tensor:
        """The classes ``[B, N, C]`` that lead along the path ``states [B, N + 1]``."""
        successors = self.table.gather(1, states[:, :-1, None].expand(-1, -1, self.width))
        return successors == states[:, 1:, None]


Automata = Tables | Edges


def in_pieces(scores: Tensor, automata: Automata, states: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The words of a text in pieces, for tensors with all transitions of as many words at once as fit.

    Args:
        scores: ``[B, N, ...]``, one value for each word.
        states: ``[B, N + 1, S]``, before each word, and after the last.

    Yields:
        ``scores``, and ``states`` before and after each word, of some words.
    """
    size = max(1, most_numbers(scores.device) // (len(scores) * automata.transitions))
    pieces = (values.split(size, 1) for values in (scores, states[:, :-1], states[:, 1:]))
    yield from zip(*pieces, strict=True)


def _for_words(values: Tensor, like: Tensor) -> Tensor:
    """``values [B, ...]``, which are the same for every word, as ``[B, N, ...]`` for ``like [B, N, T]``."""
    return values[:, None].expand(-1, like.shape[1], *values.shape[1:])


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces ``[B, *, ...]`` of a text, put together; usually there is one, and nothing to copy."""
    return pieces[0] if len(pieces) == 1 else torch.cat([*pieces], 1)


def stacked(automata: Sequence[Automaton], device: torch.device | str = "cpu") -> Automata:
    """Batch one automaton per row as tensors, padded to the largest."""
    distinct = list({id(automaton): automaton for automaton in automata}.values())
    states = max(len(automaton.table) for automaton in distinct) + 1
    width = max(automaton.table.shape[1] for automaton in distinct)
    indices = {id(automaton): index for index, automaton in enumerate(distinct)}
    rows = [indices[id(automaton)] for automaton in automata]
    largest = max(distinct, key=lambda automaton: automaton.table.size)
    if states * width >= LARGE and SPARSE * len(edges_of(largest.table).source) <= states * width:
        return _stacked_edges(distinct, states, width, rows, device)
    classes, table, ends = _batched([_padded(automaton, states, width) for automaton in distinct], rows, device)
    sets, pairs = _sets(distinct, states, width, rows, device), _pairs(distinct, states, width, rows, device)
    return Tables(classes, table, ends, sets, pairs)


def _stacked_edges(
    automata: Sequence[Automaton], states: int, width: int, rows: Sequence[int], device: torch.device | str
) -> Edges:
    edge_lists = [edges_of(automaton.table) for automaton in automata]
    edges, members, groups = _largest_sizes(edge_lists)
    arrays = list[tuple[npt.NDArray[Any], ...]]()
    for automaton, edge_list in zip(automata, edge_lists, strict=True):
        classes_, _, ends_ = _padded(automaton, states, 1)
        # No edge reaches the padding states, and the last group is empty.
        source_, target_ = (_filled(ids, edges, states - 1) for ids in (edge_list.source, edge_list.target))
        group_, of_ = _filled(edge_list.group, edges, groups), _filled(edge_list.of, members, groups)
        first_, member_ = np.searchsorted(source_, np.arange(states + 1)), _filled(edge_list.member, members, 0)
        arrays.append((classes_, ends_, source_, target_, group_, first_, member_, of_))
    classes, ends, source, target, group, first, member, of = _batched(arrays, rows, device)
    return Edges(classes, ends, source, target, group, first, member, of, groups + 1, width)


def _sets(
    automata: Sequence[Automaton], states: int, width: int, rows: Sequence[int], device: torch.device | str
) -> Sets | None:
    """The sets of classes that lead from state to state, padded to the largest; None if there are too many."""
    if states > MOST_STATES:
        return None
    edge_lists = [edges_of(automaton.table) for automaton in automata]
    groups = _largest_sizes(edge_lists)[2]
    set_size = max(int(np.bincount(edge_list.of).max(initial=1)) for edge_list in edge_lists)
    if (groups + 1) * set_size > LARGE:
        return None
    arrays = list[tuple[npt.NDArray[Any], ...]]()
    for edge_list in edge_lists:
        members, set_between_ = np.full((groups + 1, set_size), width), np.full((states, states), groups)
        order, sizes = np.argsort(edge_list.of, kind="stable"), np.bincount(edge_list.of)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        members[edge_list.of[order], rank] = edge_list.member[order]
        set_between_[edge_list.source, edge_list.target] = edge_list.group
        arrays.append((members, set_between_.reshape(-1)))
    identity = torch.full((states, states), -torch.inf, device=device).fill_diagonal_(0.0)
    member, set_between = _batched(arrays, rows, device)
    return Sets(member, set_between, identity)


def _pairs(
    automata: Sequence[Automaton], states: int, width: int, rows: Sequence[int], device: torch.device | str
) -> Pairs | None:
    """The pairs of words, with classes padded to the most; None for a CPU, and if there are too many transitions."""
    if not most_transitions(torch.device(device)) or states * width**2 > MOST_CELLS:
        return None
    arrays = [pairs_of(_padded(automaton, states, width)[1]) for automaton in automata]
    most = max(table.shape[1] for table, _ in arrays)
    if len(rows) * states * most > most_transitions(torch.device(device)):
        return None
    padded = [
        (np.pad(table, ((0, 0), (0, most - table.shape[1])), constant_values=states - 1), of) for table, of in arrays
    ]
    table, of = _batched(padded, rows, device)
    none = torch.full((width,), -torch.inf, device=device)
    none[OUTSIDE] = 0.0
    return Pairs(table, of, none)


def _largest_sizes(edge_lists: Sequence[EdgeList]) -> tuple[int, int, int]:
    """The most edges, memberships and groups of several automata."""
    edges, members, groups = (max(sizes) for sizes in zip(*(edges.sizes for edges in edge_lists), strict=True))
    return edges, members, groups


def _batched(
    arrays: Sequence[tuple[npt.NDArray[Any], ...]], rows: Sequence[int], device: torch.device | str
) -> list[Tensor]:
    """Stack the arrays of distinct automata, one tensor for each kind of array; ``rows`` index the automata."""
    kinds = [[torch.from_numpy(array).to(device) for array in kind] for kind in zip(*arrays, strict=True)]
    if len(arrays) == 1:  # a single automaton is not copied
        return [kind[0].expand(len(rows), *kind[0].shape) for kind in kinds]
    return [torch.stack([kind[row] for row in rows]) for kind in kinds]


def _padded(automaton: Automaton, states: int, width: int) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    """The classes, table and ends of an automaton, padded to ``states`` and ``width``; the last state is the sink."""
    table = np.full((states, width), states - 1)
    rows, columns = automaton.table.shape[0], min(width, automaton.table.shape[1])
    successors = automaton.table[:, :columns]
    table[:rows, :columns] = np.where(successors == DEAD, states - 1, successors)
    ends = np.full(states, -np.inf, dtype=np.float32)
    ends[:rows][automaton.accepting] = 0.0
    return automaton.classes, table, ends


def _filled(values: Ints, size: int, value: int) -> Ints:
    return np.concatenate([values, np.full(size - len(values), value)])
