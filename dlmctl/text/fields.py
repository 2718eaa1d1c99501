"""What data sets say of their texts: fields and values, however they are spelled."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from dlmctl.text.spelling import split_words

Value = str | bool | int | float
Given = str | dict[str, Value]
"""A source as recipes and callers write it: a text, or fields and values."""

# The released E2E files, their tokenised form and everyday English name the same fields differently.
_SAME_FIELD = {"eat type": "type", "price range": "price", "customer rating": "rating"}


def field_key(name: str) -> str:
    """What spellings of one field have in common: ``priceRange``, ``price_range`` and ``Price`` are all ``price``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", name)
    key = " ".join(spaced.lower().split())
    return _SAME_FIELD.get(key, key)


def value_words(value: Value) -> str:
    """A value as words in the spelling of texts, ``£20-25`` as ``£ 20 - 25``; true and false are yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(split_words(str(value)))


def nearest_value(words: str, values: Sequence[str]) -> str:
    """``nearest`` whatever the case: a hint at the value that was perhaps meant."""
    by_lower = {value.lower(): value for value in values}
    close = difflib.get_close_matches(words.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"Did you mean {by_lower[close[0]]!r}?" if close else f"Known: {', '.join(values)}."
