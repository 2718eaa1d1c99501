"""Numbers and arrays of NumPy as Python's own values, which is what strict settings accept."""

from __future__ import annotations

from typing import Any


def plain_value(value: Any) -> Any:
    """``value`` with NumPy's numbers, strings and arrays in it, at any depth of lists and dicts, as Python's own.

    >>> plain_value({"words": 8, "letters": [1, None]})
    {'words': 8, 'letters': [1, None]}
    """
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if type(value) is dict:
        return {key: plain_value(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_value, value))
    return value


def name_of(value: Any) -> str:
    """The name of a function or class, which in Python may be a value of a recipe; else that of the type."""
    return str(getattr(value, "__name__", type(value).__name__))
