"""Which English words rhyme: those with the same sounds from the last vowel with primary stress (a perfect rhyme).

The pronunciations are the first ones of the CMU Pronouncing Dictionary, for the words of the bundled models
(``rhymes.json``, written by ``benchmarks/rhymes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from dlmctl.text.pronouncing import word_groups
from dlmctl.text.spelling import plain

FILE = "rhymes.json"


def rhymes_of(word: str) -> frozenset[str]:
    """The words that rhyme with a word, in lower case; empty if none are known.

    >>> sorted(rhymes_of("garden"))
    ['harden', 'pardon']
    """
    folded = plain(word).casefold()
    return frozenset(_groups().get(folded, ())) - {folded}


@cache
def _groups() -> Mapping[str, Sequence[str]]:
    """The words of the group of each word."""
    return {word: group for group in word_groups(FILE).values() for word in group}
