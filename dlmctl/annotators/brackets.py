"""Labelled brackets as evalb counts them (Sekine and Collins 1997): precision, recall and F1 of parses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from dlmctl.annotators.trees import JOIN, Span, Tree, labelled_spans

# The words that evalb's COLLINS.prm deletes, by their tags.
PUNCTUATION = (",", ":", "``", "''", ".")


class Brackets(NamedTuple):
    """The number of brackets that two trees share, and of those of each."""

    matched: int
    gold: int
    found: int

    @property
    def precision(self) -> float:
        return self.matched / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.matched / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where neither tree has a bracket."""
        both = self.gold + self.found
        return 2 * self.matched / both if both else 1.0


def compare(gold: Tree, found: Tree, ignore: Collection[str] = PUNCTUATION) -> Brackets:
    """The labelled brackets of two trees.

    Every phrase counts once, including each phrase of a unary chain; the root symbol and tags do not count; ``PRT``
    counts as ``ADVP``. As with evalb's COLLINS.prm, words whose tag in ``gold`` is in ``ignore`` are deleted before
    spans are taken, and phrases that become empty with them; ``ignore=()`` counts all words. The trees may differ in
    length, which evalb refuses: brackets are then compared by their word numbers.
    """
    deleted = {place for place, leaf in enumerate(gold.leaves()) if leaf.label in ignore}
    return compare_spans(labelled_spans(gold), labelled_spans(found), deleted)


def compare_spans(gold: Iterable[Span], found: Iterable[Span], deleted: Collection[int] = ()) -> Brackets:
    """The labelled brackets of two trees, given as their spans; see ``compare``.

    Args:
        deleted: words that do not count.
    """
    gold_counts, found_counts = _brackets(gold, deleted), _brackets(found, deleted)
    return Brackets((gold_counts & found_counts).total(), gold_counts.total(), found_counts.total())


def corpus_f1(pairs: Iterable[tuple[Tree, Tree]]) -> Brackets:
    """The summed brackets of all pairs of a gold and a found tree."""
    counts = [compare(gold, found) for gold, found in pairs]
    return Brackets(*(sum(column) for column in zip(*counts, strict=True))) if counts else Brackets(0, 0, 0)


def _brackets(spans: Iterable[Span], deleted: Collection[int]) -> Counter[tuple[int, int, str]]:
    counts: Counter[tuple[int, int, str]] = Counter()
    for start, end, chain in spans:
        kept = [start, end] if not deleted else [place for place in range(start, end + 1) if place not in deleted]
        if kept:
            for label in chain.split(JOIN):
                counts[kept[0], kept[-1], "ADVP" if label == "PRT" else label] += 1
    return counts
