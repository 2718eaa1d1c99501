"""The verdict on a text, and what of an author's code can be taken as one."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple


class Check(NamedTuple):
    """The verdict on one text.

    Attributes:
        score: in [0, 1].
        why: the reason in a few words.
        where: the words at fault, counted from 0, where single words can be named.
    """

    score: float
    passed: bool
    why: str
    where: tuple[int, ...] = ()


def settled(found: Any) -> Check | None:
    """A verdict in Python's own numbers, which can be written as JSON; None for what is none."""
    if not isinstance(found, Check) or not isinstance(found.score, Real) or not 0 <= found.score <= 1:
        return None
    if found.passed not in (True, False):  # NumPy's truth values are equal to these, and no instances of bool
        return None
    return Check(float(found.score), bool(found.passed), str(found.why), tuple(int(place) for place in found.where))


def is_range(found: Any) -> bool:
    """Whether this is a pair of whole numbers."""
    return isinstance(found, tuple | list) and len(found) == 2 and all(type(number) is int for number in found)


def joined(row: Sequence[Check]) -> Check:
    """The verdict of controls that are all to hold."""
    where = sorted({place for check in row for place in check.where})
    score = sum(check.score for check in row) / len(row)
    return Check(score, all(check.passed for check in row), "; ".join(check.why for check in row), tuple(where))
