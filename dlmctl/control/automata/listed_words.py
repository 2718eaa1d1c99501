"""Texts of listed words over tokens, each word in the tokens in which the tokenizer writes it.

Other tokens that spell the same word are left out: so where one word ends and the next begins is clear from the tokens,
and the automaton has few states more than the words have beginnings of several tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence, Set
from typing import Literal, NamedTuple

import numpy as np

from dlmctl.control.automata.dfa import DEAD, OUTSIDE, Automaton, reduced, require_size
from dlmctl.control.automata.lifted import MAX_SPARSE_CELLS, MAX_SPARSE_STATES
from dlmctl.text.tokenizer import HuggingFaceTokenizer
from dlmctl.text.tokens import plain_words

Role = Literal["word", "clitic", "closing", "opening", "hyphen", "dash", "break"]

# Where a text is between two words: nodes of the tries below, whose first ones these are. A text that goes on after a
# prompt may begin with a space, or with a mark.
START, AFTER_WORD, AFTER_MARK, AFTER_OPENING = PLACES = range(4)
_MAY_END = (AFTER_WORD, AFTER_MARK)


class _Way(NamedTuple):
    """A way to write an entry: after which places, how it looks there, and the place after it.

    Attributes:
        before: a text after which the entry is written in the same way.
        lead: what is written between the two.
    """

    places: tuple[int, ...]
    before: str
    lead: str
    after: int


_WAYS: dict[Role, tuple[_Way, ...]] = {
    "word": (
        _Way((START,), "", "", AFTER_WORD),
        _Way((START, AFTER_WORD, AFTER_MARK), "x", " ", AFTER_WORD),
        _Way((AFTER_OPENING,), "(", "", AFTER_WORD),
    ),
    "clitic": (_Way((AFTER_WORD,), "x", "", AFTER_MARK),),
    "closing": (_Way((START, AFTER_WORD, AFTER_MARK), "x", "", AFTER_MARK),),
    "opening": (
        _Way((START,), "", "", AFTER_OPENING),
        _Way((START, AFTER_WORD, AFTER_MARK), "x", " ", AFTER_OPENING),
    ),
    "hyphen": (_Way((AFTER_WORD,), "x", "", AFTER_OPENING),),
    "dash": (_Way((START, AFTER_WORD, AFTER_MARK), "x", " ", AFTER_MARK),),
    "break": (_Way((AFTER_WORD, AFTER_MARK), "x", "", START),),
}


class Entry(NamedTuple):
    """A word, or marks, that texts may have.

    Attributes:
        role: what it is, which decides where it may stand and how it is spaced.
        counts: whether it is one of those of which a text has ``least``.
    """

    text: str
    role: Role
    counts: bool = False


class _Trie:
    """The tokens of entries: a trie for each place, all in one list of nodes."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{} for _ in PLACES]
        # Where a text is after an entry that ends at a node, and whether the entry counts.
        self.ends: list[set[tuple[int, bool]]] = [set() for _ in PLACES]

    def add(self, place: int, tokens: Sequence[int], after: int, counts: bool) -> None:
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
        for node in reversed(range(len(PLACES), len(same))):
            self.children[node] = {token: same[child] for token, child in self.children[node].items()}
            key = frozenset(self.children[node].items()), frozenset(self.ends[node])
            same[node] = kept.setdefault(key, node)
            if same[node] != node:
                self.children[node] = {}
        for place in PLACES:
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


def writable(tokenizer: HuggingFaceTokenizer, texts: Iterable[str]) -> set[str]:
    """Those of the words ``texts`` that are one word to the tokenizer, and that it can write within a text."""
    return {text for text in texts if plain_words(text) == [text] and _tokens(tokenizer, "x", " ", text) is not None}


def listed_words(tokenizer: HuggingFaceTokenizer, entries: Iterable[Entry], least: int = 0) -> Automaton:
    """The texts of entries, with at least ``least`` of those that count.

    Raises:
        TooLarge: the automaton would be too large.
    """
    trie = _Trie()
    for entry in entries:
        for way in _WAYS[entry.role]:
            tokens = _tokens(tokenizer, way.before, way.lead, entry.text)
            for place in way.places if tokens else ():
                trie.add(place, tokens or (), way.after, entry.counts)
    trie.merge()
    alike = trie.symbols()
    rows, accepting = _determinised(trie, least, {tokens[0] for tokens in alike})
    return _automaton(rows, accepting, alike, len(tokenizer))


def _tokens(tokenizer: HuggingFaceTokenizer, before: str, lead: str, text: str) -> tuple[int, ...] | None:
    """The tokens of a text after another one; None if they are not those of the text alone, as for an unknown sign."""
    head, whole = (tokenizer.encode_text(string)[1:-1] for string in (before, before + lead + text))
    tokens = whole[len(head) :]
    strings = [tokenizer.strings[token] for token in tokens]
    if whole[: len(head)] != head or None in strings:
        return None
    written = b"".join(string or b"" for string in strings).decode("utf-8", "replace")
    return tuple(tokens) if written.removeprefix(" ") == text else None


def _determinised(trie: _Trie, least: int, symbols: Set[int]) -> tuple[list[dict[int, int]], list[bool]]:
    """The next state for each state and symbol, and whether each state accepts; a state is a set of nodes with the
    number of entries that count, of which more than ``least`` are not counted."""
    children = [{token: child for token, child in row.items() if token in symbols} for row in trie.children]
    start = frozenset([(START, 0)])
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
    accepting = [any(node in _MAY_END and count >= least for node, count in state) for state in states]
    return rows, accepting


def _automaton(
    rows: Sequence[dict[int, int]], accepting: Sequence[bool], alike: Sequence[Sequence[int]], size: int
) -> Automaton:
    """The automaton over ``size`` tokens, from rows over the first of each group of tokens that are ``alike``."""
    require_size(len(rows), len(alike) + 1, MAX_SPARSE_STATES, MAX_SPARSE_CELLS)
    classes = np.full(size, OUTSIDE, dtype=np.int64)
    table = np.full((len(rows), len(alike) + 1), DEAD, dtype=np.int64)
    class_of = {}
    for number, tokens in enumerate(alike, start=OUTSIDE + 1):
        classes[tokens] = class_of[tokens[0]] = number
    for state, row in enumerate(rows):
        table[state, [class_of[token] for token in row]] = list(row.values())
    return reduced(Automaton(classes, table, np.array(accepting, dtype=bool)))
