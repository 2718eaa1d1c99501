"""Values of NumPy and pandas, and sets, as plain values of Python, which is what strict settings accept."""

from __future__ import annotations

from typing import Any


def plain_value(value: Any) -> Any:
    """``value`` as Python's own numbers, strings, lists and dicts, at any depth: NumPy's, sets, and columns of pandas.

    >>> plain_value({"words": {"tea", "cup"}, "letters": [1, None]})
    {'words': ['cup', 'tea'], 'letters': [1, None]}
    """
    if type(value).__module__.partition(".")[0] in ("numpy", "pandas") and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(map(plain_value, value), key=str)  # the order of a set differs from process to process
    if type(value) is dict:
        return {key: plain_value(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_value, value))
    return value


def name_of(value: Any) -> str:
    """The name of a function or class, which in Python may be a value of a recipe; else that of the type."""
    return str(getattr(value, "__name__", type(value).__name__))
