"""Labelled brackets as evalb counts them (Sekine and Collins 1997): precision, recall and F1 of parses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from dlmctl.annotators.trees import JOIN, Span, Tree, labelled_spans

# The words that evalb's COLLINS.prm deletes, by their tags.
PUNCTUATION = (",", ":", "``", "''", ".")


class Brackets(NamedTuple):
    """How many brackets two trees share, and how many each has."""

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

    Every phrase counts once, those of a unary chain each, the root symbol and tags never; ``PRT`` counts as ``ADVP``.
    As evalb's COLLINS.prm does, words whose tag in ``gold`` is in ``ignore`` are deleted before spans are taken,
    and phrases left empty with them; ``ignore=()`` counts all words. The trees may differ in length, which evalb
    refuses: brackets are then compared by their word numbers.
    """
    deleted = {place for place, leaf in enumerate(gold.leaves()) if leaf.label in ignore}
    return compare_spans(labelled_spans(gold), labelled_spans(found), deleted)


def compare_spans(gold: Iterable[Span], found: Iterable[Span], deleted: Collection[int] = ()) -> Brackets:
    """The labelled brackets of two trees, given as their spans; see ``compare``.

    Args:
        deleted: words that do not count.
    """
    wanted, got = _brackets(gold, deleted), _brackets(found, deleted)
    return Brackets((wanted & got).total(), wanted.total(), got.total())


def corpus_f1(pairs: Iterable[tuple[Tree, Tree]]) -> Brackets:
    """The brackets of all pairs of a gold and a found tree together."""
    counts = [compare(gold, found) for gold, found in pairs]
    return Brackets(*(sum(column) for column in zip(*counts, strict=True))) if counts else Brackets(0, 0, 0)


def _brackets(spans: Iterable[Span], deleted: Collection[int]) -> Counter[tuple[int, int, str]]:
    found: Counter[tuple[int, int, str]] = Counter()
    for start, end, chain in spans:
        kept = [start, end] if not deleted else [place for place in range(start, end + 1) if place not in deleted]
        if kept:
            for label in chain.split(JOIN):
                found[kept[0], kept[-1], "ADVP" if label == "PRT" else label] += 1
    return found
