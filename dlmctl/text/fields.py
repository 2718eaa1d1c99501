"""Fields and values of data sets, independent of their spelling."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from dlmctl.errors import RecipeError
from dlmctl.text.spelling import plain, split_words

Value = str | bool | int | float
Source = str | dict[str, Value]
"""A source in recipes and in Python: a text, or fields and values."""

# The released E2E files, their tokenised form and everyday English name the same fields differently.
_SAME_FIELD = {"eat type": "type", "price range": "price", "customer rating": "rating"}


def field_key(name: str) -> str:
    """A key common to all spellings of a field: ``priceRange``, ``price_range`` and ``Price`` are all ``price``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", name)
    key = " ".join(spaced.lower().split())
    return _SAME_FIELD.get(key, key)


def value_words(value: Value) -> str:
    """A value as words, spelled as in texts: ``£20-25`` equals ``£ 20 - 25``; true and false are yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(plain(word) for word in split_words(str(value)))


def find_value(value: Value, known: Sequence[str], fault: str) -> int:
    """The index of a value among those known, regardless of case.

    Args:
        fault: the message for an unknown value, with ``{}`` in its place.

    Raises:
        RecipeError: it is unknown; the message names the nearest known value.
    """
    words = value_words(value)
    for at, other in enumerate(known):
        if other.lower() == words.lower():
            return at
    raise RecipeError(fault.format(repr(words)), remedy=nearest_value(words, known))


def nearest_value(words: str, values: Sequence[str]) -> str:
    """A hint at the value that was perhaps meant, regardless of case."""
    by_lower = {value.lower(): value for value in values}
    close = difflib.get_close_matches(words.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"Did you mean {by_lower[close[0]]!r}?" if close else f"Known: {', '.join(values)}."
