"""The tree of a pattern over words: its nodes and word classes, possible lengths, and matching without automata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dlmctl.text.spelling import plain

# Limits on a pattern, checked before anything is built.
MAX_CHARACTERS = 4_000
MAX_DEPTH = 50
MAX_REPEATS = 1_000
MAX_WORDS = 2_000


# Dataclasses and not tuples: a tuple of one word and one of one class of words that have the same name would be equal.
@dataclass(frozen=True, slots=True)
class Literal:
    """One word, as written."""

    word: str


@dataclass(frozen=True, slots=True)
class WordClass:
    """Any one word of a class in ``CLASSES``."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Its items one after the other."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of its items."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """An item ``least`` to ``most`` times in a row; None for no maximum."""

    item: Node
    least: int
    most: int | None


Node: TypeAlias = Literal | WordClass | Chain | Choice | Repeat


def _is_word(word: str) -> bool:
    return any(map(str.isalnum, word))


# The classes that depend on the word alone. Parts of speech are not among them: they depend on the sentence.
CLASSES: dict[str, Callable[[str], bool]] = {
    "any": lambda word: True,
    "word": _is_word,
    "punctuation": lambda word: not _is_word(word),
    "number": lambda word: re.fullmatch(r"\d+(?:[.,:/]\d+)*", word) is not None,
    "capitalised": lambda word: word[:1].isupper(),
    "lowercase": str.islower,
}


def matches(label: Literal | WordClass, word: str) -> bool:
    """Whether a word matches a label, ignoring spacing marks."""
    return plain(label.word) == plain(word) if isinstance(label, Literal) else CLASSES[label.name](word)


def labels(node: Node) -> Iterator[Literal | WordClass]:
    """The words and classes of a pattern in written order."""
    if isinstance(node, Literal | WordClass):
        yield node
    elif isinstance(node, Repeat):
        yield from labels(node.item)
    else:
        for item in node.items:
            yield from labels(item)


def word_range(node: Node) -> tuple[int, int | None]:
    """The fewest and the most words of a matching text; None for no maximum."""
    if isinstance(node, Literal | WordClass):
        return 1, 1
    if isinstance(node, Repeat):
        least, most = word_range(node.item)
        return least * node.least, None if most is None or node.most is None else most * node.most
    ranges = [word_range(item) for item in node.items]
    maxima = [most for _, most in ranges]
    if isinstance(node, Chain):
        return sum(least for least, _ in ranges), None if None in maxima else sum(most or 0 for most in maxima)
    return min(least for least, _ in ranges), None if None in maxima else max(most or 0 for most in maxima)


def size(node: Node) -> int:
    """The number of words of a pattern with its repeats written out."""
    if isinstance(node, Literal | WordClass):
        return 1
    if isinstance(node, Repeat):
        return size(node.item) * (node.most if node.most is not None else node.least + 1)
    return sum(map(size, node.items))


def match(node: Node, words: tuple[str, ...]) -> tuple[bool, int]:
    """Whether the whole text matches, and how many of its first words can begin a match.

    It tracks sets of positions, so it takes polynomial time for every pattern: a backtracking matcher takes exponential
    time for ``(<any>+)+ .`` on a text without a full stop. It uses no automaton, so that it can check automata.
    """
    reached = {0}
    ends = _ends(node, words, frozenset({0}), reached)
    return len(words) in ends, max(reached)


def aligned(items: Sequence[Node], words: tuple[str, ...]) -> tuple[int, list[int] | None]:
    """Align a text with a sequence of items, in the way of ``match``.

    Returns:
        How many of the items match the beginning of the text; and the index of the word at which each item starts, the
        latest if there is a choice, or None if the whole text does not match.
    """
    ends = [frozenset({0})]
    for item in items:
        item_ends = _ends(item, words, ends[-1], set())
        if not item_ends:
            return len(ends) - 1, None
        ends.append(item_ends)
    if len(words) not in ends.pop():
        return len(items), None
    starts = [len(words)]
    for item, before in zip(reversed(items), reversed(ends), strict=True):
        starts.append(max(at for at in before if starts[-1] in _ends(item, words, frozenset({at}), set())))
    return len(items), starts[:0:-1]


def _ends(node: Node, words: tuple[str, ...], starts: frozenset[int], reached: set[int]) -> frozenset[int]:
    """Where a match that begins at one of ``starts`` can end; all positions on the way are added to ``reached``."""
    if isinstance(node, Literal | WordClass):
        ends = frozenset(at + 1 for at in starts if at < len(words) and matches(node, words[at]))
        reached.update(ends)
        return ends
    if isinstance(node, Chain):
        for item in node.items:
            starts = _ends(item, words, starts, reached)
        return starts
    if isinstance(node, Choice):
        return frozenset().union(*(_ends(item, words, starts, reached) for item in node.items))
    for _ in range(node.least):
        starts = _ends(node.item, words, starts, reached)
    ends, new, repeats_left = starts, starts, node.most if node.most is None else node.most - node.least
    # A position that was reached with fewer repeats leads to nothing new with more.
    while new and repeats_left != 0:
        new = _ends(node.item, words, new, reached) - ends
        ends, repeats_left = ends | new, repeats_left if repeats_left is None else repeats_left - 1
    return ends
