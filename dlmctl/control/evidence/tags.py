"""Evidence of words for their tag between the tags of their neighbours: counts of (left tag, tag, right tag).

The evidence of word v at a position with wanted tag y, between wanted tags l and r, is 2 log R + 1.5 log F with

    R = p(y | v, l, r): given v between these neighbours, does it have the tag?
    F = p(l, r | v): does v occur between such neighbours at all?

Both are counts, smoothed by what the tags of v alone predict. If a target allows several tags, the counts are summed
over the allowed classes, so that alternatives and wildcards are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dlmctl.control.evidence.prepared import Evidence, prepare
from dlmctl.control.evidence.table import CountTable, Ints, class_shares, count_table, product

TAGS_FILE = "tags.safetensors"

# The tag before the first and after the last word.
EDGE = "<>"
ANY = "*"
# Pseudo-counts of the prior in p(tag | word), in R and in F; chosen on validation text.
TAG_PRIOR, TAG_COUNTS, NEIGHBOUR_COUNTS = 0.5, 2.0, 10.0
# A word that probably has another tag between these neighbours (R < SURE) is almost excluded.
SURE, FLOOR_TAG, FLOOR_NEIGHBOURS = 0.5, 1e-6, 1e-4
WEIGHT_TAG, WEIGHT_NEIGHBOURS = 2.0, 1.5
# Makes 0 / 0 equal to 0.
TINY = np.float32(1e-30)

Choices = frozenset[str]
Target = tuple[Choices | None, Choices | None, Choices | None]


def count_tags(
    sentences: Iterable[tuple[Sequence[int], Sequence[int]]], tags: Sequence[str], size: int, vocabulary: str = ""
) -> CountTable:
    """Count each word with its tag and the tags of its neighbours.

    Args:
        sentences: word ids and the indices of their tags in ``tags``; a word with a negative id is not counted, but its
            tag is context for its neighbours.
        size: number of words V.
    """
    words: list[int] = []
    padded: list[int] = []
    edge = len(tags)
    for ids, tag_indices in sentences:
        words += [-1, *ids, -1]
        padded += [edge, *tag_indices, edge]
    return count_tag_rows(np.array(words, np.int64), np.array(padded, np.int64), tags, size, vocabulary)


def count_tag_rows(words: Ints, padded: Ints, tags: Sequence[str], size: int, vocabulary: str = "") -> CountTable:
    """``count_tags`` from flat arrays ``[M]``: all sentences concatenated, each between two edges.

    Args:
        words: word ids, negative at edges and for words not counted.
        padded: indices of tags, ``len(tags)`` at edges.
    """
    places = np.flatnonzero(words >= 0)
    values = np.stack([padded[places - 1], padded[places], padded[places + 1]], -1)
    names = [*tags, EDGE]
    return count_table([names, names, names], words[places], values, size, vocabulary)


class TagEvidence:
    """Log-evidence from a table of (left tag, tag, right tag) counts.

    Args:
        weight_tag, weight_neighbours: weights of log R and log F; lower for a model that takes the tags as input.
    """

    def __init__(
        self, table: CountTable, weight_tag: float = WEIGHT_TAG, weight_neighbours: float = WEIGHT_NEIGHBOURS
    ) -> None:
        self.table, self.weight_tag, self.weight_neighbours = table, weight_tag, weight_neighbours
        tags = table.marginal(1)
        # p(tag | word) [tags, V]; p(neighbours | tag), as the share of each class among those with its tag [K, tags].
        self.tags_of_words = np.ascontiguousarray(tag_given_word(tags).T.astype(np.float32))
        self.share = class_shares(table, 1, tags.sum(0))

    def rows(self, targets: Sequence[Target]) -> NDArray[np.float32]:
        """Nats ``[targets, V]`` for sets of (left tags, tags, right tags); None allows all."""
        table = self.table
        in_context = np.stack([table.allowed(0, left) & table.allowed(2, right) for left, _, right in targets])
        wanted = in_context & np.stack([table.allowed(1, tags) for _, tags, _ in targets])
        context_counts, wanted_counts = table.sums(in_context), table.sums(wanted)
        expected_context, expected = (
            product(classes, self.share, self.tags_of_words) for classes in (in_context, wanted)
        )
        prior = expected / np.maximum(expected_context, TINY)
        p_tag = (wanted_counts + TAG_COUNTS * prior) / (context_counts + TAG_COUNTS)
        p_tag[p_tag < SURE] = FLOOR_TAG
        totals = table.word_totals.astype(np.float32)
        p_neighbours = (context_counts + NEIGHBOUR_COUNTS * expected_context) / (totals + NEIGHBOUR_COUNTS)
        nats: NDArray[np.float32] = self.weight_tag * np.log(p_tag)
        nats += self.weight_neighbours * np.log(p_neighbours.clip(FLOOR_NEIGHBOURS))
        return nats

    def evidence(self, texts: Sequence[Sequence[str]], length: int) -> Evidence:
        """Evidence for texts given by the wanted tags of their words.

        Args:
            texts: for each word a tag, alternatives such as ``ADJ|NOUN``, or ``*``.
            length: number of positions of the batch.
        """
        return prepare([targets_of(tags) for tags in texts], length, self.table.words, self.rows)


def tag_given_word(tags: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """p(tag | word) ``[V, tags]`` from counts of the same shape, smoothed by the frequencies of the tags."""
    prior = tags.sum(0) / max(1, tags.sum())
    probabilities: NDArray[np.float64] = (tags + TAG_PRIOR * prior) / (tags.sum(1, keepdims=True) + TAG_PRIOR)
    return probabilities


@lru_cache(maxsize=8)
def tag_evidence(table: CountTable, weight_tag: float, weight_neighbours: float) -> TagEvidence:
    """The evidence of a table; cached."""
    return TagEvidence(table, weight_tag, weight_neighbours)


def targets_of(tags: Sequence[str]) -> list[Target]:
    """The target of each word of a text: the wanted tags of its left neighbour, of itself, and of its right one."""
    padded = [frozenset([EDGE]), *map(choices, tags), frozenset([EDGE])]
    return list(zip(padded, padded[1:], padded[2:], strict=False))


@lru_cache(maxsize=4096)
def choices(wanted: str) -> Choices | None:
    """The set of alternative tags in a string such as ``ADJ|NOUN``; None, for any tag, if ``*`` is among them."""
    tags = frozenset(wanted.split("|"))
    return None if ANY in tags else tags
