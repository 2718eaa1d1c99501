"""Fields and values of data sets, independent of their spelling."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from dlmctl.errors import RecipeError
from dlmctl.text.spelling import plain, split_words

Value = str | bool | int | float
Source = str | dict[str, Value]
"""A source in recipes and in Python: a text, or fields and values."""

# The released E2E files, their tokenised form and everyday English name the same fields differently.
_SAME_FIELD = {"eat type": "type", "price range": "price", "customer rating": "rating"}
# The words of true and false in recipes, and how data may spell them: YAML reads all of them as truth values.
_TRUTH_WORDS = {True: ("yes", "true", "on"), False: ("no", "false", "off")}


def field_key(name: str) -> str:
    """A key common to all spellings of a field: ``priceRange``, ``price_range`` and ``Price`` are all ``price``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", name)
    key = " ".join(spaced.lower().split())
    return _SAME_FIELD.get(key, key)


def value_words(value: Value) -> str:
    """A value as words, spelled as in texts: ``£20-25`` equals ``£ 20 - 25``; true and false are yes and no."""
    if isinstance(value, bool):
        return _TRUTH_WORDS[value][0]
    return " ".join(plain(word) for word in split_words(str(value)))


def distinct_values(counts: Mapping[str, int]) -> list[str]:
    """Values as words (``value_words``) that differ in more than case, sorted, each in its commonest spelling.

    Args:
        counts: how often each value occurs.
    """
    spellings: dict[str, str] = {}
    for words in sorted(counts, key=lambda words: (-counts[words], words)):
        spellings.setdefault(words.lower(), words)
    return sorted(spellings.values())


def value_index(value: Value, known: Sequence[str]) -> int | None:
    """The index of a value among those known, regardless of case, None if it is unknown.

    >>> value_index("Cheap", ["cheap", "dear"]), value_index(False, ["False", "True"]), value_index("free", ["cheap"])
    (0, 0, None)
    """
    lower = [words.lower() for words in known]
    spellings = _TRUTH_WORDS[value] if isinstance(value, bool) else (value_words(value).lower(),)
    return next((lower.index(spelling) for spelling in spellings if spelling in lower), None)


def find_value(value: Value, known: Sequence[str], fault: str) -> int:
    """``value_index`` of a value that must be known.

    Args:
        fault: the message for an unknown value, with ``{}`` in its place.

    Raises:
        RecipeError: it is unknown; the message names the nearest known value.
    """
    index = value_index(value, known)
    if index is None:
        words = value_words(value)
        raise RecipeError(fault.format(repr(words)), remedy=nearest_value(words, known))
    return index


def nearest_value(words: str, values: Sequence[str]) -> str:
    """A hint at the value that was perhaps meant, regardless of case."""
    by_lower = {value.lower(): value for value in values}
    close = difflib.get_close_matches(words.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"Did you mean {by_lower[close[0]]!r}?" if close else f"Known: {', '.join(values)}."
