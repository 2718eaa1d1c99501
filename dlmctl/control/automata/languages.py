"""The automata of exact controls: patterns, phrases that must or must not occur, numbers of words, word lists."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from dlmctl.control.automata.dfa import DEAD, OUTSIDE, Automaton, Bools, Ints, partition, reduced, require_size
from dlmctl.control.automata.nfa import determinised
from dlmctl.control.automata.syntax import Literal, Node, WordClass, labels, matches
from dlmctl.errors import UnsatisfiableError
from dlmctl.text.spelling import plain

# Stands for the id of a word outside the vocabulary.
UNKNOWN = -1


class Alphabet:
    """The words of a vocabulary.

    Args:
        words: the word of each token id; None for START, END, PAD and UNK, which are in no language.

    Attributes:
        words: as passed.
        ids: the id of each word.
        is_word: ``[V]``, whether each token id is a word.
    """

    def __init__(self, words: Sequence[str | None]) -> None:
        self.words = list(words)
        self.ids = {word: index for index, word in enumerate(words) if word is not None}
        self.is_word: Bools = np.array([word is not None for word in words], dtype=bool)

    def numbers(self, words: Sequence[str]) -> list[int] | None:
        """The ids of words, of punctuation marks without their spacing marks if need be; None if a word has no id."""
        ids = [self.ids.get(word, self.ids.get(plain(word))) for word in words]
        return None if None in ids else [token_id for token_id in ids if token_id is not None]


def pattern(node: Node, alphabet: Alphabet) -> Automaton:
    """The texts that match a pattern, or a template, whose blanks are repeats of ``<any>``.

    No text contains a word outside the vocabulary.

    Raises:
        UnsatisfiableError: no text over this vocabulary matches.
        TooLarge: the automaton would be too large.
    """
    sets: dict[str, Bools] = {}
    singles: list[int] = []
    for label in dict.fromkeys(labels(node)):
        if not isinstance(label, Literal):
            sets[label.name] = np.array([word is not None and matches(label, word) for word in alphabet.words])
        elif label.word in alphabet.ids:
            singles.append(alphabet.ids[label.word])
    classes, members = partition(alphabet.is_word, sets, singles)
    members[UNKNOWN] = np.zeros(0, dtype=np.int64)

    def classes_of(label: Literal | WordClass) -> Ints:
        return members[alphabet.ids.get(label.word, UNKNOWN) if isinstance(label, Literal) else label.name]

    table, accepting = determinised(node, classes_of, classes)
    automaton = reduced(Automaton(classes, table, accepting))
    if automaton.empty:
        raise UnsatisfiableError("no text of words that the model knows matches the pattern.")
    return automaton


def everything(alphabet: Alphabet) -> Automaton:
    """Every text of words."""
    return only(alphabet, alphabet.is_word)


def nothing(alphabet: Alphabet) -> Automaton:
    """No text at all."""
    whole = everything(alphabet)
    return replace(whole, accepting=np.zeros_like(whole.accepting))


def only(alphabet: Alphabet, allowed: Bools) -> Automaton:
    """The texts whose words are all ``allowed [V]``."""
    classes = np.where(alphabet.is_word, np.where(allowed, 1, 2), OUTSIDE)
    return Automaton(classes, np.array([[DEAD, 0, DEAD]]), np.ones(1, dtype=bool))


def length(alphabet: Alphabet, least: int, most: int | None = None) -> Automaton:
    """The texts of ``least`` to ``most`` words; None for no maximum."""
    last = most if most is not None else max(least, 1)
    require_size(last + 1, 2)
    next_state = np.append(np.arange(1, last + 1), DEAD if most is not None else last)
    table = np.stack([np.full(last + 1, DEAD), next_state], axis=1)
    return Automaton(alphabet.is_word.astype(np.int64), table, np.arange(last + 1) >= least)


def ended(automaton: Automaton, end: int, pad: int) -> Automaton:
    """The texts of a language followed by END and any number of PADs: for texts whose number of words is not settled.

    Args:
        end, pad: token ids of END and PAD.
    """
    states, width = automaton.table.shape
    table = np.full((states + 1, width + 2), DEAD, dtype=np.int64)
    table[:states, :width] = automaton.table
    table[:states, width] = np.where(automaton.accepting, states, DEAD)
    table[states, width + 1] = states
    classes = automaton.classes.copy()
    classes[end], classes[pad] = width, width + 1
    return Automaton(classes, table, np.arange(states + 1) == states)


def stopped(automaton: Automaton, stops: Collection[int]) -> Automaton:
    """The texts of a language followed by any number of stop tokens: for texts that need not fill their positions.

    Args:
        stops: ids of the stop tokens.
    """
    states, width = automaton.table.shape
    table = np.full((states + 1, width + 1), DEAD, dtype=np.int64)
    table[:states, :width] = automaton.table
    table[:states, width] = np.where(automaton.accepting, states, DEAD)
    table[states, width] = states
    classes = automaton.classes.copy()
    classes[sorted(stops)] = width
    return Automaton(classes, table, np.append(automaton.accepting, True))


def containing(alphabet: Alphabet, phrase: Sequence[int]) -> Automaton:
    """The texts that contain a phrase (token ids)."""
    return in_order(alphabet, [phrase])


def in_order(alphabet: Alphabet, phrases: Sequence[Sequence[int]]) -> Automaton:
    """The texts that contain all phrases (token ids) in this order, with anything between; one state per word.

    The automaton of Knuth, Morris & Pratt (1977) for each phrase; after one is found, the search for the next begins.
    """
    classes, members = partition(alphabet.is_word, {}, [token for phrase in phrases for token in phrase])
    states, width = sum(map(len, phrases)) + 1, int(classes.max()) + 1
    require_size(states, width)
    table = np.full((states, width), states - 1, dtype=np.int64)
    first = 0
    for phrase in phrases:
        symbols = [int(members[token][0]) for token in phrase]
        table[first : first + len(phrase)] = _search(symbols, width) + first
        first += len(phrase)
    table[:, OUTSIDE] = DEAD
    return Automaton(classes, table, np.arange(states) == states - 1)


def _search(symbols: Sequence[int], width: int) -> Ints:
    """The KMP table ``[n, width]`` of a phrase of n symbols: how many are matched after each prefix and a symbol."""
    table = np.zeros((len(symbols), width), dtype=np.int64)
    fallback = 0  # length of the longest prefix that is also a proper suffix of the symbols so far
    for length_read, symbol in enumerate(symbols):
        table[length_read] = table[fallback]
        fallback = int(table[fallback, symbol])
        table[length_read, symbol] = length_read + 1
    return table


def avoiding(alphabet: Alphabet, phrases: Sequence[Sequence[int]]) -> Automaton:
    """The texts that contain none of the phrases (token ids): the complement of Aho & Corasick's automaton (1975).

    Raises:
        TooLarge: the phrases have too many words.
    """
    # A word that is a phrase by itself is excluded everywhere, so thousands of them need one class and no state.
    is_excluded = np.zeros(len(alphabet.is_word), dtype=bool)
    is_excluded[[token for phrase in phrases if len(phrase) == 1 for token in phrase]] = True
    longer = [phrase for phrase in phrases if not is_excluded[list(phrase)].any()]
    tokens = [token for phrase in longer for token in phrase]
    classes, members = partition(alphabet.is_word, {"excluded": is_excluded}, tokens)
    width = int(classes.max()) + 1
    children: list[dict[int, int]] = [{}]
    matching: set[int] = set()  # nodes at which a phrase ends
    for phrase in longer:
        node = 0
        for token in phrase:
            symbol = int(members[token][0])
            if symbol not in children[node]:
                require_size(len(children) + 1, width)
                children[node][symbol] = len(children)
                children.append({})
            node = children[node][symbol]
        matching.add(node)
    table = np.zeros((len(children), width), dtype=np.int64)
    queue: deque[tuple[int, int]] = deque([(0, 0)])  # a node, and the node of its longest proper suffix
    while queue:
        node, fallback = queue.popleft()
        if fallback in matching:
            matching.add(node)
        if node:
            table[node] = table[fallback]
        for symbol, child in children[node].items():
            queue.append((child, int(table[fallback, symbol]) if node else 0))
            table[node, symbol] = child
    table[:, [OUTSIDE, *members["excluded"]]] = DEAD
    is_match = np.isin(np.arange(len(children)), sorted(matching))
    table[is_match[table] & (table != DEAD)] = DEAD
    return reduced(Automaton(classes, table, ~is_match))
