"""Texts of entries that are several tokens each, as an automaton: the tokens tell where an entry begins and ends."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence, Set

import numpy as np

from dlmctl.control.automata.dfa import DEAD, OUTSIDE, Automaton, reduced, require_size
from dlmctl.control.automata.lifted import MAX_SPARSE_CELLS, MAX_SPARSE_STATES


class TokenTrie:
    """The tokens of entries: a trie for each place, all in one list of nodes, of which the places are the first.

    Args:
        places: their number; a text begins at place 0.
    """

    def __init__(self, places: int) -> None:
        self.places = range(places)
        self.children: list[dict[int, int]] = [{} for _ in self.places]
        # Where a text is after an entry that ends at a node, and whether the entry counts.
        self.ends: list[set[tuple[int, bool]]] = [set() for _ in self.places]

    def add(self, place: int, tokens: Sequence[int], after: int, counts: bool) -> None:
        """Add an entry that leads from one place to another.

        Args:
            counts: whether it is one of those of which a text has ``least``.
        """
        node = place
        for token in tokens:
            if token not in self.children[node]:
                self.children[node][token] = len(self.children)
                self.children.append({})
                self.ends.append(set())
            node = self.children[node][token]
        self.ends[node].add((after, counts))

    def merge(self) -> None:
        """Lead to one node from wherever the same can follow."""
        kept: dict[Hashable, int] = {}
        same = list(range(len(self.children)))
        # Children come after their parents.
        for node in reversed(range(len(self.places), len(same))):
            self.children[node] = {token: same[child] for token, child in self.children[node].items()}
            key = frozenset(self.children[node].items()), frozenset(self.ends[node])
            same[node] = kept.setdefault(key, node)
            if same[node] != node:
                self.children[node] = {}
        for place in self.places:
            self.children[place] = {token: same[child] for token, child in self.children[place].items()}

    def symbols(self) -> list[list[int]]:
        """The tokens, those together that lead from every node to the same one."""
        columns: dict[int, list[tuple[int, int]]] = {}
        for node, children in enumerate(self.children):
            for token, child in children.items():
                columns.setdefault(token, []).append((node, child))
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for token, column in columns.items():
            alike.setdefault(tuple(column), []).append(token)
        return list(alike.values())


def automaton_of(trie: TokenTrie, least: int, may_end: Collection[int], size: int) -> Automaton:
    """The texts of entries, with at least ``least`` of those that count, that end at a place in ``may_end``.

    Args:
        size: the number of tokens of the vocabulary.

    Raises:
        TooLarge: the automaton would be too large.
    """
    trie.merge()
    alike = trie.symbols()
    rows, states = _determinised(trie, least, {tokens[0] for tokens in alike})
    accepting = [any(node in may_end and count >= least for node, count in state) for state in states]
    require_size(len(rows), len(alike) + 1, MAX_SPARSE_STATES, MAX_SPARSE_CELLS)
    classes = np.full(size, OUTSIDE, dtype=np.int64)
    table = np.full((len(rows), len(alike) + 1), DEAD, dtype=np.int64)
    class_of = {}
    for number, tokens in enumerate(alike, start=OUTSIDE + 1):
        classes[tokens] = class_of[tokens[0]] = number
    for state, row in enumerate(rows):
        table[state, [class_of[token] for token in row]] = list(row.values())
    return reduced(Automaton(classes, table, np.array(accepting, dtype=bool)))


def _determinised(
    trie: TokenTrie, least: int, symbols: Set[int]
) -> tuple[list[dict[int, int]], list[frozenset[tuple[int, int]]]]:
    """The next state for each state and symbol, and the states: sets of nodes, each with the number of entries that
    count, of which more than ``least`` are not counted (subset construction)."""
    children = [{token: child for token, child in row.items() if token in symbols} for row in trie.children]
    start = frozenset([(0, 0)])
    number, states = {start: 0}, [start]
    rows = list[dict[int, int]]()
    while len(rows) < len(states):
        after: dict[int, set[tuple[int, int]]] = {}
        for node, count in states[len(rows)]:
            for token, child in children[node].items():
                reached = after.setdefault(token, set())
                if trie.children[child]:
                    reached.add((child, count))
                reached.update((place, min(least, count + counts)) for place, counts in trie.ends[child])
        row: dict[int, int] = {}
        for token, reached in after.items():
            state = frozenset(reached)
            if state not in number:
                number[state] = len(states)
                states.append(state)
                require_size(len(states), 1, MAX_SPARSE_STATES)
            row[token] = number[state]
        rows.append(row)
    return rows, states
