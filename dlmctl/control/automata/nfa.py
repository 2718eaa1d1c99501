"""A pattern's tree to the table of a deterministic automaton."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dlmctl.control.automata.dfa import DEAD, Bools, Ints, TooLarge, require_size
from dlmctl.control.automata.syntax import Chain, Choice, Literal, Node, Repeat, WordClass

# Of the subset construction, in (state, class) pairs looked at.
MAX_WORK = 4_000_000


class _Nfa:
    """States with steps that read a word, and steps that read none (Thompson 1968)."""

    def __init__(self) -> None:
        self.silent: list[list[int]] = []
        self.reading: list[tuple[Literal | WordClass, int] | None] = []

    def state(self) -> int:
        self.silent.append([])
        self.reading.append(None)
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
        for _ in range(node.least):
            start = self.add(node.item, start)
        end = self.state()
        self.silent[start].append(end)
        if node.most is None:
            self.silent[self.add(node.item, end)].append(end)
            return end
        for _ in range(node.most - node.least):
            start = self.add(node.item, start)
            self.silent[start].append(end)
        return end

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
    sets = [nfa.closure(start)]
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
        for symbol, after in moves.items():
            if after not in number:
                number[after] = len(sets)
                sets.append(after)
                require_size(len(sets), width)
            row[symbol] = number[after]
        rows.append(row)
    return np.stack(rows), np.array([bool(after >> last & 1) for after in sets])
