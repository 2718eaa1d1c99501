"""Evidence of words for their position in a constituency tree: counts of leaves by context, and of words by spans.

For a whole tree the class of a word is (its tag, the label of its parent, the label of its next sister); the
evidence of word v at a position of class c is the log of

    p(c | v) = (C[v, c] + a p(tag of c | v) p(c | tag of c)) / (C[v] + a)

For single spans the tags are unknown, and the class of a word is its part in a span, such as (first word, NP, width 3).
There is no evidence for words outside all wanted spans and not adjacent to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlmctl.control.evidence.prepared import Evidence, prepare
from dlmctl.control.evidence.table import CountTable, Ints, class_shares, count_table, product
from dlmctl.control.evidence.tags import tag_given_word

# The label of the next sister of a last child.
LAST = "-"
# The root symbols above all phrases, which are not phrases themselves.
ROOTS = ("ROOT", "TOP", "")
# Pseudo-counts of the prior, and the least probability; chosen on validation text.
COUNTS, FLOOR = 2.0, 1e-7
# Wider spans count as this width.
WIDEST = 6
# The pseudo-part that counts all occurrences of a word, by tag.
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
    """(tag, parent's label, next sister's label) of each word; ``-`` if there is no phrase above or no next sister.

    The labels of ``tree`` must have no function tags, like those of the trees that were counted.
    """
    if not tree.children:
        return [(tree.label, LAST, LAST)]
    classes: list[Leaf] = []
    parent = LAST if tree.label in ROOTS else tree.label
    next_labels = [child.label for child in tree.children[1:]] + [LAST]
    for child, next_label in zip(tree.children, next_labels, strict=True):
        classes += leaf_classes(child) if child.children else [(child.label, parent, next_label)]
    return classes


def count_leaves(
    sentences: Iterable[tuple[Sequence[int], Sequence[Leaf]]], size: int, vocabulary: str = ""
) -> CountTable:
    """Count words by the classes of their leaves.

    Args:
        sentences: word ids, negative for words not counted, and the ``leaf_classes`` of their tree.
        size: number of words V.
    """
    return _count(
        ((word, leaf) for ids, leaves in sentences for word, leaf in zip(ids, leaves, strict=True)), size, vocabulary
    )


class LeafEvidence:
    """Log-evidence from a table of (tag, parent, next sister) counts."""

    def __init__(self, table: CountTable) -> None:
        self.table = table
        tags = table.marginal(0)
        self.tags_of_words = np.ascontiguousarray(tag_given_word(tags).T.astype(np.float32))
        self.share = class_shares(table, 0, tags.sum(0))

    def rows(self, targets: Sequence[Leaf]) -> NDArray[np.float32]:
        """Nats ``[targets, V]``; for an unseen class, only those of its values that were seen together count."""
        table = self.table
        wanted = np.stack([self.classes(leaf) for leaf in targets])
        expected = product(wanted, self.share, self.tags_of_words)
        totals = table.word_totals.astype(np.float32)
        probabilities = (table.sums(wanted) + COUNTS * expected) / (totals + COUNTS)
        nats: NDArray[np.float32] = np.log(probabilities.clip(FLOOR))
        return nats

    def classes(self, leaf: Leaf) -> NDArray[np.bool_]:
        """Which of the counted classes match a leaf; a value never seen with those before it is ignored."""
        matches = np.ones(len(self.table.combinations), bool)
        for axis, value in enumerate(leaf):
            narrower = matches & self.table.allowed(axis, [value])
            matches = narrower if narrower.any() else matches
        return matches

    def evidence(self, trees: Sequence[Node], length: int) -> Evidence:
        """Evidence for the words of whole trees, in a batch of ``length`` positions."""
        return prepare([leaf_classes(tree) for tree in trees], length, self.table.words, self.rows)


def span_parts(spans: Iterable[tuple[int, int, str]], count: int) -> Iterator[tuple[int, Part]]:
    """Yield the words of ``count`` that are in or adjacent to a span, with their part: (part, label, width).

    Args:
        spans: first word, last word (from 0, inclusive) and label; a unary chain has a joint label. A span that does
            not fit into the words has no parts: under ``not`` and ``any``, texts may be shorter than it.
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
    """Count words by their parts in spans, and by their tags.

    Args:
        sentences: word ids, negative for words not counted, their tags, and the spans of their tree.
        size: number of words V.
    """

    def observations() -> Iterator[tuple[int, Part]]:
        for ids, tags, spans in sentences:
            yield from ((word, (WORD, tag, WORD)) for word, tag in zip(ids, tags, strict=True))
            yield from ((ids[place], part) for place, part in span_parts(spans, len(ids)))

    return _count(observations(), size, vocabulary)


class SpanEvidence:
    """Log-evidence from a table of parts in spans: the sum of log p(part | word) over the parts of a position."""

    def __init__(self, table: CountTable) -> None:
        self.table = table
        tag_classes = np.flatnonzero(table.allowed(0, [WORD]))
        one_hot = np.zeros((len(tag_classes), len(table.combinations)), bool)
        one_hot[np.arange(len(tag_classes)), tag_classes] = True
        tags = table.sums(one_hot).T.astype(np.float64)
        self.totals = tags.sum(1)
        self.tag_given_word = tag_given_word(tags)
        self.tag_totals = np.maximum(tags.sum(0), 1)

    def rows(self, targets: Sequence[tuple[Part, ...]]) -> NDArray[np.float32]:
        """Nats ``[targets, V]`` for sets of parts."""
        parts = list(dict.fromkeys(part for target in targets for part in target))
        wanted = np.stack([self._classes(part) for part in parts])
        counts = self.table.sums(wanted).astype(np.float64)
        # p(part | tag): the counts of each word, distributed over its tags.
        part_given_tag = product(counts, self.tag_given_word) / self.tag_totals
        expected = product(part_given_tag, self.tag_given_word.T)
        nats = np.log(((counts + COUNTS * expected) / (self.totals + COUNTS)).clip(FLOOR))
        nats[~wanted.any(1)] = 0
        row = {part: index for index, part in enumerate(parts)}
        return np.stack([nats[[row[part] for part in target]].sum(0) for target in targets]).astype(np.float32)

    def _classes(self, part: Part) -> NDArray[np.bool_]:
        """Which of the counted classes match a part; a width never seen with its side and label is ignored."""
        side, label, width = part
        matches = self.table.allowed(0, [side]) & self.table.allowed(1, [label])
        narrower = matches & self.table.allowed(2, [width])
        return narrower if narrower.any() else matches

    def evidence(self, texts: Sequence[tuple[int, Sequence[tuple[int, int, str]]]], length: int) -> Evidence:
        """Evidence for texts, each given by its number of words and the spans it must have."""
        targets: list[list[tuple[Part, ...] | None]] = []
        for count, spans in texts:
            parts_at: list[list[Part]] = [[] for _ in range(count)]
            for place, part in span_parts(spans, count):
                parts_at[place].append(part)
            targets.append([tuple(parts) or None for parts in parts_at])
        return prepare(targets, length, self.table.words, self.rows)


def _count(observations: Iterable[tuple[int, tuple[str, str, str]]], size: int, vocabulary: str) -> CountTable:
    axes: tuple[dict[str, int], ...] = ({}, {}, {})
    words: list[int] = []
    values: list[tuple[int, ...]] = []
    for word, names in observations:
        if word >= 0:
            words.append(word)
            values.append(tuple(axis.setdefault(name, len(axis)) for axis, name in zip(axes, names, strict=True)))
    value_array: Ints = np.array(values, np.int64).reshape(-1, 3)
    return count_table([list(axis) for axis in axes], np.array(words, np.int64), value_array, size, vocabulary)
