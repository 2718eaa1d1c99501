"""The tree of a pattern over words, how many words it may have, and which words its named classes hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dlmctl.text.spelling import plain

# Bounds on what a pattern may ask for, checked before anything is built.
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
    """Any one word of a class of ``CLASSES``."""

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
    """An item ``least`` to ``most`` times in a row; None is without end."""

    item: Node
    least: int
    most: int | None


Node: TypeAlias = Literal | WordClass | Chain | Choice | Repeat


def _is_word(word: str) -> bool:
    return any(map(str.isalnum, word))


# The classes that a word itself decides. Parts of speech do not belong here: they depend on the sentence.
CLASSES: dict[str, Callable[[str], bool]] = {
    "any": lambda word: True,
    "word": _is_word,
    "punctuation": lambda word: not _is_word(word),
    "number": lambda word: re.fullmatch(r"\d+(?:[.,:/]\d+)*", word) is not None,
    "capitalised": lambda word: word[:1].isupper(),
    "lowercase": str.islower,
}


def matches(label: Literal | WordClass, word: str) -> bool:
    """Whether one word may stand where the label does, marks of spacing aside."""
    return plain(label.word) == plain(word) if isinstance(label, Literal) else CLASSES[label.name](word)


def labels(node: Node) -> Iterator[Literal | WordClass]:
    """The words and classes of a pattern in the order they are written."""
    if isinstance(node, Literal | WordClass):
        yield node
    elif isinstance(node, Repeat):
        yield from labels(node.item)
    else:
        for item in node.items:
            yield from labels(item)


def word_range(node: Node) -> tuple[int, int | None]:
    """The fewest and the most words of a text that matches; None where there is no most."""
    if isinstance(node, Literal | WordClass):
        return 1, 1
    if isinstance(node, Repeat):
        least, most = word_range(node.item)
        return least * node.least, None if most is None or node.most is None else most * node.most
    ranges = [word_range(item) for item in node.items]
    ends = [most for _, most in ranges]
    if isinstance(node, Chain):
        return sum(least for least, _ in ranges), None if None in ends else sum(most or 0 for most in ends)
    return min(least for least, _ in ranges), None if None in ends else max(most or 0 for most in ends)


def size(node: Node) -> int:
    """How many words the pattern has with its repeats written out."""
    if isinstance(node, Literal | WordClass):
        return 1
    if isinstance(node, Repeat):
        return size(node.item) * (node.most if node.most is not None else node.least + 1)
    return sum(map(size, node.items))


def match(node: Node, words: tuple[str, ...]) -> tuple[bool, int]:
    """Whether the whole text matches, and how many of its first words can begin a match.

    By sets of places, so in polynomial time whatever the pattern: a backtracking matcher needs exponential time for
    ``(<any>+)+ .`` on a text without a full stop. Uses no automaton, so that it can judge what one made.
    """
    reached = {0}
    ends = _ends(node, words, frozenset({0}), reached)
    return len(words) in ends, max(reached)


def aligned(items: Sequence[Node], words: tuple[str, ...]) -> tuple[int, list[int] | None]:
    """How many of some items, one after the other, the beginning of a text matches, and at which word each starts; the
    latest where there is a choice. None in place of these where the whole text does not match. As ``match``."""
    ends = [frozenset({0})]
    for item in items:
        found = _ends(item, words, ends[-1], set())
        if not found:
            return len(ends) - 1, None
        ends.append(found)
    if len(words) not in ends.pop():
        return len(items), None
    starts = [len(words)]
    for item, before in zip(reversed(items), reversed(ends), strict=True):
        starts.append(max(at for at in before if starts[-1] in _ends(item, words, frozenset({at}), set())))
    return len(items), starts[:0:-1]


def _ends(node: Node, words: tuple[str, ...], starts: frozenset[int], reached: set[int]) -> frozenset[int]:
    """Where a match that begins at one of ``starts`` may end; every place on the way is added to ``reached``."""
    if isinstance(node, Literal | WordClass):
        found = frozenset(at + 1 for at in starts if at < len(words) and matches(node, words[at]))
        reached.update(found)
        return found
    if isinstance(node, Chain):
        for item in node.items:
            starts = _ends(item, words, starts, reached)
        return starts
    if isinstance(node, Choice):
        return frozenset().union(*(_ends(item, words, starts, reached) for item in node.items))
    for _ in range(node.least):
        starts = _ends(node.item, words, starts, reached)
    found, fresh, left = starts, starts, node.most if node.most is None else node.most - node.least
    # A place that was reached with fewer repeats has nothing new to give with more.
    while fresh and left != 0:
        fresh = _ends(node.item, words, fresh, reached) - found
        found, left = found | fresh, left if left is None else left - 1
    return found
