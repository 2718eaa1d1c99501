"""A pattern's tree to the table of a deterministic automaton."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np

from dlmctl.control.automata.dfa import DEAD, Bools, Ints, TooLarge, require_size
from dlmctl.control.automata.syntax import Chain, Choice, Literal, Node, Repeat, WordClass

# Of the subset construction, in (state, class) pairs and states looked at.
MAX_WORK = 4_000_000


class _Nfa:
    """States with steps that read a word, and steps that read none (Thompson 1968).

    Attributes:
        stronger: of each state, as bits of a number, states from which every text can go on that can from this one.
    """

    def __init__(self) -> None:
        self.silent: list[list[int]] = []
        self.reading: list[tuple[Literal | WordClass, int] | None] = []
        self.stronger: list[int] = []

    def state(self) -> int:
        self.silent.append([])
        self.reading.append(None)
        self.stronger.append(0)
        return len(self.silent) - 1

    def add(self, node: Node, start: int) -> int:
        """Adds a pattern that begins at ``start``; the state where it ends."""
        if isinstance(node, Literal | WordClass):
            begin, end = self.state(), self.state()
            self.silent[start].append(begin)
            self.reading[begin] = (node, end)
            return end
        if isinstance(node, Chain):
            for item in node.items:
                start = self.add(item, start)
            return start
        if isinstance(node, Choice):
            end = self.state()
            for item in node.items:
                self.silent[self.add(item, start)].append(end)
            return end
        return self._add_repeat(node, start)

    def _add_repeat(self, node: Repeat, start: int) -> int:
        first: int | None = None
        for _ in range(node.least):
            first = len(self.silent)
            start = self.add(node.item, start)
        end = self.state()
        self.silent[start].append(end)
        if node.most is None:
            self.silent[self.add(node.item, end)].append(end)
            return end
        for _ in range(node.most - node.least):
            earlier, first = first, len(self.silent)
            start = self.add(node.item, start)
            self.silent[start].append(end)
            # Whoever is at the same place of the repeat before has more of them left.
            if earlier is not None:
                for state, other in zip(range(first, len(self.silent)), count(earlier), strict=False):
                    self.stronger[state] |= self.stronger[other] | 1 << other
        return end

    def strongest(self, states: int) -> int:
        """Those of some states, as bits of a number, that no other one of them can stand for."""
        found, left = 0, states
        while left:
            lowest = left & -left
            left ^= lowest
            if not self.stronger[lowest.bit_length() - 1] & states:
                found |= lowest
        return found

    def closure(self, start: int) -> int:
        """The states reached from one without a word that read a word or are last, as bits of a number."""
        seen, waiting, found = {start}, [start], 0
        while waiting:
            state = waiting.pop()
            if self.reading[state] is not None or not self.silent[state]:
                found |= 1 << state
            fresh = [after for after in self.silent[state] if after not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
        return found


def determinised(node: Node, classes_of: Callable[[Literal | WordClass], Ints], classes: Ints) -> tuple[Ints, Bools]:
    """The table ``[S, C]`` and accepting states ``[S]`` of a pattern (subset construction, Rabin & Scott 1959).

    Of the states of a set those alone are kept that no other one can stand for. So a set has one of the repeats of
    ``<any>{0,12}``, not every choice of the twelve, and templates of several blanks stay small.

    ``classes_of`` gives the classes that a word or class name covers; ``classes [V]`` are those of all tokens.

    Raises:
        TooLarge: more than MAX_STATES states, MAX_CELLS cells or MAX_WORK steps.
    """
    nfa = _Nfa()
    start = nfa.state()
    last = nfa.state()
    nfa.silent[nfa.add(node, start)].append(last)
    width, work = int(classes.max()) + 1, 0
    closures: dict[int, int] = {}
    strongest: dict[int, int] = {}
    sets = [nfa.strongest(nfa.closure(start))]
    number = {sets[0]: 0}
    rows: list[Ints] = []
    while len(rows) < len(sets):
        moves: dict[int, int] = {}
        left = sets[len(rows)]
        while left:
            lowest = left & -left
            left ^= lowest
            step = nfa.reading[lowest.bit_length() - 1]
            if step is None:
                continue
            label, to = step
            if to not in closures:
                closures[to] = nfa.closure(to)
            covered = classes_of(label).tolist()
            work += len(covered)
            for symbol in covered:
                moves[symbol] = moves.get(symbol, 0) | closures[to]
        if work > MAX_WORK:
            raise TooLarge("the pattern is too large.", remedy="Use shorter repeats or fewer alternatives.")
        row = np.full(width, DEAD, dtype=np.int64)
        for symbol, reached in moves.items():
            if reached not in strongest:
                strongest[reached] = nfa.strongest(reached)
                work += reached.bit_count()
            after = strongest[reached]
            if after not in number:
                number[after] = len(sets)
                sets.append(after)
                require_size(len(sets), width)
            row[symbol] = number[after]
        rows.append(row)
    return np.stack(rows), np.array([bool(after >> last & 1) for after in sets])
