"""What a word says of its place in a constituency tree: counts of leaves by their surroundings, and of words by spans.

For a whole tree the class of a word is (its tag, the label of its parent, the label of its next sister); the
evidence for word v at a place of class c is the log of

    p(c | v) = (C[v, c] + a p(tag of c | v) p(c | tag of c)) / (C[v] + a)

For single spans the tags are unknown, and a word's class is the part it has in a span: (first word, NP, width 3).
Words outside all spans asked for, and not right beside one, have no evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlmctl.control.evidence.prepared import Evidence, prepare
from dlmctl.control.evidence.table import CountTable, Ints, class_shares, count_table, product
from dlmctl.control.evidence.tags import tag_given_word

# The sister of a last child.
LAST = "-"
# The symbol above all phrases, which is none itself.
ROOTS = ("ROOT", "TOP", "")
# Counts of the prior, and the least probability; chosen on validation text.
COUNTS, FLOOR = 2.0, 1e-7
# Spans wider than this are counted together.
WIDEST = 6
# How often a word was seen at all, by tag: the part it has in no span.
WORD = "word"

Leaf = tuple[str, str, str]
Part = tuple[str, str, str]


class Node(Protocol):
    """A node of a tree: a phrase with children, or a word whose label is its tag."""

    @property
    def label(self) -> str: ...
    @property
    def children(self) -> Sequence[Node]: ...


def leaf_classes(tree: Node) -> list[Leaf]:
    """(tag, parent's label, next sister's label) of each word; ``-`` where there is no phrase above or no next sister.

    Labels without function tags, as the counted trees' are.
    """
    if not tree.children:
        return [(tree.label, LAST, LAST)]
    found: list[Leaf] = []
    parent = LAST if tree.label in ROOTS else tree.label
    following = [child.label for child in tree.children[1:]] + [LAST]
    for child, after in zip(tree.children, following, strict=True):
        found += leaf_classes(child) if child.children else [(child.label, parent, after)]
    return found


def count_leaves(
    sentences: Iterable[tuple[Sequence[int], Sequence[Leaf]]], size: int, vocabulary: str = ""
) -> CountTable:
    """Counts of words by the classes of their leaves.

    Args:
        sentences: word ids, negative for words not counted, and ``leaf_classes`` of their tree.
        size: how many words there are.
    """
    return _count(
        ((word, leaf) for ids, leaves in sentences for word, leaf in zip(ids, leaves, strict=True)), size, vocabulary
    )


class LeafEvidence:
    """Log-evidence from a table of (tag, parent, next sister)."""

    def __init__(self, table: CountTable) -> None:
        self.table = table
        tags = table.marginal(0)
        self.tags_of_words = np.ascontiguousarray(tag_given_word(tags).T.astype(np.float32))
        self.share = class_shares(table, 0, tags.sum(0))

    def rows(self, targets: Sequence[Leaf]) -> NDArray[np.float32]:
        """Nats ``[targets, V]``; of a class that was never counted only the values count that were seen together."""
        table = self.table
        wanted = np.stack([self.classes(leaf) for leaf in targets])
        expected = product(wanted, self.share, self.tags_of_words)
        totals = table.word_totals.astype(np.float32)
        found = (table.sums(wanted) + COUNTS * expected) / (totals + COUNTS)
        nats: NDArray[np.float32] = np.log(found.clip(FLOOR))
        return nats

    def classes(self, leaf: Leaf) -> NDArray[np.bool_]:
        """Which of the counted classes a leaf is of; a value never seen with those before it is left out."""
        met = np.ones(len(self.table.combinations), bool)
        for axis, value in enumerate(leaf):
            narrower = met & self.table.allowed(axis, [value])
            met = narrower if narrower.any() else met
        return met

    def evidence(self, trees: Sequence[Node], length: int) -> Evidence:
        """Evidence for the words of whole trees, in a batch of so many places."""
        return prepare([leaf_classes(tree) for tree in trees], length, self.table.words, self.rows)


def span_parts(spans: Iterable[tuple[int, int, str]], count: int) -> Iterator[tuple[int, Part]]:
    """The places, of ``count`` words, that have a part in or beside spans, and which: (part, label, width).

    Args:
        spans: first word, last word, both from 0 and included, and label; a unary chain's as one. Of a span that does
            not lie within the words no place has a part: under ``not`` and ``any`` texts may be shorter than it.
    """
    for start, end, label in spans:
        if end >= count:
            continue
        width = str(min(end - start + 1, WIDEST))
        if start == end:
            yield start, ("only", label, width)
        else:
            yield start, ("first", label, width)
            yield end, ("last", label, width)
            for place in range(start + 1, end):
                yield place, ("second" if place == start + 1 else "inside", label, width)
        if start:
            yield start - 1, ("before", label, width)
        if end + 1 < count:
            yield end + 1, ("after", label, width)


def count_spans(
    sentences: Iterable[tuple[Sequence[int], Sequence[str], Sequence[tuple[int, int, str]]]],
    size: int,
    vocabulary: str = "",
) -> CountTable:
    """Counts of words by their parts in spans, and by their tags.

    Args:
        sentences: word ids, negative for words not counted, their tags, and the spans of their tree.
        size: how many words there are.
    """

    def observed() -> Iterator[tuple[int, Part]]:
        for ids, tags, spans in sentences:
            yield from ((word, (WORD, tag, WORD)) for word, tag in zip(ids, tags, strict=True))
            yield from ((ids[place], part) for place, part in span_parts(spans, len(ids)))

    return _count(observed(), size, vocabulary)


class SpanEvidence:
    """Log-evidence from a table of parts in spans: the sum of log p(part | word) over the parts a place has."""

    def __init__(self, table: CountTable) -> None:
        self.table = table
        classes = np.flatnonzero(table.allowed(0, [WORD]))
        chosen = np.zeros((len(classes), len(table.combinations)), bool)
        chosen[np.arange(len(classes)), classes] = True
        tags = table.sums(chosen).T.astype(np.float64)
        self.totals = tags.sum(1)
        self.tag_given_word = tag_given_word(tags)
        self.tag_totals = np.maximum(tags.sum(0), 1)

    def rows(self, targets: Sequence[tuple[Part, ...]]) -> NDArray[np.float32]:
        """Nats ``[targets, V]`` for sets of parts."""
        parts = list(dict.fromkeys(part for target in targets for part in target))
        wanted = np.stack([self._classes(part) for part in parts])
        counts = self.table.sums(wanted).astype(np.float64)
        # p(part | tag): each word's counts shared out by its own tags.
        by_tag = product(counts, self.tag_given_word) / self.tag_totals
        expected = product(by_tag, self.tag_given_word.T)
        nats = np.log(((counts + COUNTS * expected) / (self.totals + COUNTS)).clip(FLOOR))
        nats[~wanted.any(1)] = 0
        row = {part: at for at, part in enumerate(parts)}
        return np.stack([nats[[row[part] for part in target]].sum(0) for target in targets]).astype(np.float32)

    def _classes(self, part: Part) -> NDArray[np.bool_]:
        side, label, width = part
        met = self.table.allowed(0, [side]) & self.table.allowed(1, [label])
        narrower = met & self.table.allowed(2, [width])
        return narrower if narrower.any() else met

    def evidence(self, texts: Sequence[tuple[int, Sequence[tuple[int, int, str]]]], length: int) -> Evidence:
        """Evidence for texts given by their number of words and the spans they must have."""
        targets: list[list[tuple[Part, ...] | None]] = []
        for count, spans in texts:
            places: list[list[Part]] = [[] for _ in range(count)]
            for place, part in span_parts(spans, count):
                places[place].append(part)
            targets.append([tuple(parts) or None for parts in places])
        return prepare(targets, length, self.table.words, self.rows)


def _count(observed: Iterable[tuple[int, tuple[str, str, str]]], size: int, vocabulary: str) -> CountTable:
    numbers: tuple[dict[str, int], ...] = ({}, {}, {})
    words: list[int] = []
    values: list[tuple[int, ...]] = []
    for word, names in observed:
        if word >= 0:
            words.append(word)
            values.append(tuple(axis.setdefault(name, len(axis)) for axis, name in zip(numbers, names, strict=True)))
    found: Ints = np.array(values, np.int64).reshape(-1, 3)
    return count_table([list(axis) for axis in numbers], np.array(words, np.int64), found, size, vocabulary)
