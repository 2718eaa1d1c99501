"""What a word says of its tag between the tags of its neighbours: counts of (left tag, tag, right tag).

The evidence for word v at a place whose wanted tag is y, between wanted tags l and r, is 2 log R + 1.5 log F with

    R = p(y | v, l, r): given v between these neighbours, does it have the tag?
    F = p(l, r | v): does v stand between such neighbours at all?

Both are counts smoothed by what the tag of v alone would tell. Sums over allowed classes take the place of single
ones where a target leaves a choice, so that alternatives and wildcards are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dlmctl.control.evidence.prepared import Evidence, prepare
from dlmctl.control.evidence.table import CountTable, Ints, class_shares, count_table, product

TAGS_FILE = "tags.safetensors"

# The neighbour beyond the first and the last word.
EDGE = "<>"
ANY = "*"
# Counts of the prior in p(tag | word), in R and in F; chosen on validation text.
TAG_PRIOR, TAG_COUNTS, NEIGHBOUR_COUNTS = 0.5, 2.0, 10.0
# A word that rather has another tag between these neighbours is all but excluded.
SURE, FLOOR_TAG, FLOOR_NEIGHBOURS = 0.5, 1e-6, 1e-4
WEIGHT_TAG, WEIGHT_NEIGHBOURS = 2.0, 1.5
# Keeps a quotient of two zeros at zero.
TINY = np.float32(1e-30)

Choices = frozenset[str]
Target = tuple[Choices | None, Choices | None, Choices | None]


def count_tags(
    sentences: Iterable[tuple[Sequence[int], Sequence[int]]], tags: Sequence[str], size: int, vocabulary: str = ""
) -> CountTable:
    """Counts of each word with its tag and its neighbours' tags.

    Args:
        sentences: word ids and the numbers of their tags in ``tags``; a negative word id is not counted itself, but
            its tag is its neighbours' context.
        size: how many words there are.
    """
    words: list[int] = []
    padded: list[int] = []
    edge = len(tags)
    for ids, found in sentences:
        words += [-1, *ids, -1]
        padded += [edge, *found, edge]
    return count_tag_rows(np.array(words, np.int64), np.array(padded, np.int64), tags, size, vocabulary)


def count_tag_rows(words: Ints, padded: Ints, tags: Sequence[str], size: int, vocabulary: str = "") -> CountTable:
    """``count_tags`` from flat arrays ``[M]``: all sentences in a row, each between two edges.

    Args:
        words: word ids, negative at edges and for words not counted.
        padded: numbers of tags, ``len(tags)`` at edges.
    """
    places = np.flatnonzero(words >= 0)
    values = np.stack([padded[places - 1], padded[places], padded[places + 1]], -1)
    names = [*tags, EDGE]
    return count_table([names, names, names], words[places], values, size, vocabulary)


class TagEvidence:
    """Log-evidence from a table of (left tag, tag, right tag).

    Args:
        weight_tag, weight_neighbours: of log R and log F; a model that takes the tags as its input needs less of both.
    """

    def __init__(
        self, table: CountTable, weight_tag: float = WEIGHT_TAG, weight_neighbours: float = WEIGHT_NEIGHBOURS
    ) -> None:
        self.table, self.weight_tag, self.weight_neighbours = table, weight_tag, weight_neighbours
        tags = table.marginal(1)
        # p(tag | word) [tags, V], and p(neighbours | tag) as the share of each class among those of its tag [K, tags].
        self.tags_of_words = np.ascontiguousarray(tag_given_word(tags).T.astype(np.float32))
        self.share = class_shares(table, 1, tags.sum(0))

    def rows(self, targets: Sequence[Target]) -> NDArray[np.float32]:
        """Nats ``[targets, V]`` for sets of (left tags, tags, right tags); None allows all."""
        table = self.table
        between = np.stack([table.allowed(0, left) & table.allowed(2, right) for left, _, right in targets])
        met = between & np.stack([table.allowed(1, tags) for _, tags, _ in targets])
        around, wanted = table.sums(between), table.sums(met)
        expected_around, expected = (product(one, self.share, self.tags_of_words) for one in (between, met))
        right_tag = (wanted + TAG_COUNTS * (expected / np.maximum(expected_around, TINY))) / (around + TAG_COUNTS)
        right_tag[right_tag < SURE] = FLOOR_TAG
        totals = table.word_totals.astype(np.float32)
        neighbours = (around + NEIGHBOUR_COUNTS * expected_around) / (totals + NEIGHBOUR_COUNTS)
        found: NDArray[np.float32] = self.weight_tag * np.log(right_tag)
        found += self.weight_neighbours * np.log(neighbours.clip(FLOOR_NEIGHBOURS))
        return found

    def evidence(self, texts: Sequence[Sequence[str]], length: int) -> Evidence:
        """Evidence for texts given by a tag, alternatives as ``ADJ|NOUN``, or ``*`` for each word.

        Args:
            texts: the wanted tags of each text.
            length: places of the batch.
        """
        return prepare([targets_of(tags) for tags in texts], length, self.table.words, self.rows)


def tag_given_word(tags: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """p(tag | word) ``[V, tags]`` from counts of the same shape, smoothed by how frequent the tags are."""
    prior = tags.sum(0) / max(1, tags.sum())
    found: NDArray[np.float64] = (tags + TAG_PRIOR * prior) / (tags.sum(1, keepdims=True) + TAG_PRIOR)
    return found


@lru_cache(maxsize=8)
def tag_evidence(table: CountTable, weight_tag: float, weight_neighbours: float) -> TagEvidence:
    """The evidence of a table, made once."""
    return TagEvidence(table, weight_tag, weight_neighbours)


def targets_of(tags: Sequence[str]) -> list[Target]:
    """What each word of a text is asked, with its neighbours' tags."""
    padded = [frozenset([EDGE]), *map(choices, tags), frozenset([EDGE])]
    return list(zip(padded, padded[1:], padded[2:], strict=False))


@lru_cache(maxsize=4096)
def choices(wanted: str) -> Choices | None:
    """``ADJ|NOUN`` to the set of both; None where ``*`` is among them."""
    found = frozenset(wanted.split("|"))
    return None if ANY in found else found
