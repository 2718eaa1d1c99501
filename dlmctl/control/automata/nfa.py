"""From the tree of a pattern to the table of a deterministic automaton."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np

from dlmctl.control.automata.dfa import DEAD, Bools, Ints, TooLarge, require_size
from dlmctl.control.automata.syntax import Chain, Choice, Literal, Node, Repeat, WordClass

# Limit on the subset construction, in (state, class) pairs and states visited.
MAX_WORK = 4_000_000


class _Nfa:
    """A nondeterministic automaton with transitions that read a word and empty ones (Thompson 1968).

    Attributes:
        empty: the targets of the empty transitions of each state.
        reading: the label and the target of the transition of each state that reads a word, if it has one.
        dominators: for each state, as a bit set, states that accept every continuation that it accepts.
    """

    def __init__(self) -> None:
        self.empty: list[list[int]] = []
        self.reading: list[tuple[Literal | WordClass, int] | None] = []
        self.dominators: list[int] = []

    def new_state(self) -> int:
        self.empty.append([])
        self.reading.append(None)
        self.dominators.append(0)
        return len(self.empty) - 1

    def add(self, node: Node, start: int) -> int:
        """Add a pattern that begins at state ``start``, and return the state where it ends."""
        if isinstance(node, Literal | WordClass):
            begin, end = self.new_state(), self.new_state()
            self.empty[start].append(begin)
            self.reading[begin] = (node, end)
            return end
        if isinstance(node, Chain):
            for item in node.items:
                start = self.add(item, start)
            return start
        if isinstance(node, Choice):
            end = self.new_state()
            for item in node.items:
                self.empty[self.add(item, start)].append(end)
            return end
        return self._add_repeat(node, start)

    def _add_repeat(self, node: Repeat, start: int) -> int:
        first: int | None = None
        for _ in range(node.least):
            first = len(self.empty)
            start = self.add(node.item, start)
        end = self.new_state()
        self.empty[start].append(end)
        if node.most is None:
            self.empty[self.add(node.item, end)].append(end)
            return end
        for _ in range(node.most - node.least):
            previous, first = first, len(self.empty)
            start = self.add(node.item, start)
            self.empty[start].append(end)
            # The same state of the previous copy has one more repeat left, so it dominates.
            if previous is not None:
                for state, other in zip(range(first, len(self.empty)), count(previous), strict=False):
                    self.dominators[state] |= self.dominators[other] | 1 << other
        return end

    def undominated(self, states: int) -> int:
        """The subset of ``states`` that no other one of them dominates; both as bit sets."""
        subset, remaining = 0, states
        while remaining:
            lowest = remaining & -remaining
            remaining ^= lowest
            if not self.dominators[lowest.bit_length() - 1] & states:
                subset |= lowest
        return subset

    def closure(self, start: int) -> int:
        """The states that empty transitions reach from ``start`` and that read a word or are final, as a bit set."""
        seen, stack, states = {start}, [start], 0
        while stack:
            state = stack.pop()
            if self.reading[state] is not None or not self.empty[state]:
                states |= 1 << state
            unseen = [target for target in self.empty[state] if target not in seen]
            seen.update(unseen)
            stack.extend(unseen)
        return states


def determinised(node: Node, classes_of: Callable[[Literal | WordClass], Ints], classes: Ints) -> tuple[Ints, Bools]:
    """The table ``[S, C]`` and accepting states ``[S]`` of a pattern (subset construction, Rabin & Scott 1959).

    Dominated states are removed from each set. So a set contains one of the repeats of ``<any>{0,12}``, not any subset
    of the twelve, and templates with several blanks stay small.

    Args:
        classes_of: returns the classes that a word or a word class covers.
        classes: ``[V]``, the class of each token.

    Raises:
        TooLarge: more than MAX_STATES states, MAX_CELLS cells or MAX_WORK steps.
    """
    nfa = _Nfa()
    start = nfa.new_state()
    final = nfa.new_state()
    nfa.empty[nfa.add(node, start)].append(final)
    width, work = int(classes.max()) + 1, 0
    closures: dict[int, int] = {}
    undominated: dict[int, int] = {}
    subsets = [nfa.undominated(nfa.closure(start))]
    number = {subsets[0]: 0}
    rows: list[Ints] = []
    while len(rows) < len(subsets):
        moves: dict[int, int] = {}
        remaining = subsets[len(rows)]
        while remaining:
            lowest = remaining & -remaining
            remaining ^= lowest
            transition = nfa.reading[lowest.bit_length() - 1]
            if transition is None:
                continue
            label, target = transition
            if target not in closures:
                closures[target] = nfa.closure(target)
            covered = classes_of(label).tolist()
            work += len(covered)
            for symbol in covered:
                moves[symbol] = moves.get(symbol, 0) | closures[target]
        if work > MAX_WORK:
            raise TooLarge("the pattern is too large.", remedy="Use shorter repeats or fewer alternatives.")
        row = np.full(width, DEAD, dtype=np.int64)
        for symbol, reached in moves.items():
            if reached not in undominated:
                undominated[reached] = nfa.undominated(reached)
                work += reached.bit_count()
            subset = undominated[reached]
            if subset not in number:
                number[subset] = len(subsets)
                subsets.append(subset)
                require_size(len(subsets), width)
            row[symbol] = number[subset]
        rows.append(row)
    return np.stack(rows), np.array([bool(subset >> final & 1) for subset in subsets])
