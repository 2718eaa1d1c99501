"""Properties of words that need no table: length, syllables, and frequency in the text that a model was trained on."""

from __future__ import annotations

from dlmctl.text.spelling import letters
from dlmctl.text.syllables import syllables
from dlmctl.text.word_counts import WordCounts

# Properties that are computed from the counts of a model's training text.
COUNTED = ("frequency", "zipf")
BUILT_IN = ("letters", "syllables", *COUNTED)


def built_in_property(word: str, name: str, counts: WordCounts | None) -> float | None:
    """One of the ``BUILT_IN`` properties of a word; None if it is unknown."""
    if name == "letters":
        return letters(word)
    if name == "syllables":
        return None if (count := syllables(word)) is None else float(count)
    if counts is None:
        return None
    return counts.zipf(word) if name == "zipf" else counts.per_million(word)
