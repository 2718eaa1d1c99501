"""The verdict on a text, what its judge saw there, and what of an author's code can be taken as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

# The score of a text that is what it is not to be, at most, though it be so with a score of 0.
MOST_FAILED = 0.99


class Mark(NamedTuple):
    """What a judge read at some words of a text, for those who look at it.

    Attributes:
        start, end: the first and last word, from 0; None for what the text lacks.
        label: what was found there, such as a tag; empty where the words themselves are it.
        met: whether it is as wanted, or nothing is wanted there.
        wanted: what should have been found, where that is not.
    """

    start: int | None
    end: int | None
    label: str = ""
    met: bool = True
    wanted: str = ""

    def to_list(self) -> list[Any]:
        """As it stands in JSON: the fields in order, without those at the end that are as by default."""
        fields, defaults = list(self), self._field_defaults
        for name in reversed(defaults):
            if fields[-1] != defaults[name]:
                break
            fields.pop()
        return fields


_PLAIN = (int, int, str, bool, str)


class Check(NamedTuple):
    """The verdict on one text.

    Attributes:
        score: in [0, 1].
        why: the reason in a few words.
        where: the words at fault, counted from 0, where single words can be named.
        marks: what the judge saw, word by word or span by span; see ``seen``. Places outside of the text are left out,
            here and of ``where``.
    """

    score: float
    passed: bool
    why: str
    where: tuple[int, ...] = ()
    marks: tuple[Mark, ...] = ()

    @property
    def seen(self) -> tuple[Mark, ...]:
        """The marks, or where a control gives none, one on each word at fault."""
        return self.marks or tuple(Mark(place, place, met=False) for place in self.where)

    def __repr__(self) -> str:
        """The verdict without its marks, of which there may be many."""
        return f"Check(score={self.score!r}, passed={self.passed!r}, why={self.why!r}, where={self.where!r})"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain values."""
        return {
            "score": self.score,
            "passed": self.passed,
            "why": self.why,
            "where": list(self.where),
            "marks": [mark.to_list() for mark in self.seen],
        }


def settled(found: Any, length: int) -> Check | None:
    """A verdict in Python's own numbers, which can be written as JSON, on a text of ``length`` words; None for what is
    none. Places that the text does not have are left out."""
    if not isinstance(found, Check) or not isinstance(found.score, Real) or not 0 <= found.score <= 1:
        return None
    if found.passed not in (True, False):  # NumPy's truth values are equal to these, and no instances of bool
        return None
    if not all(isinstance(mark, Mark) and (mark.start is None) == (mark.end is None) for mark in found.marks):
        return None
    where = tuple(place for place in map(int, found.where) if 0 <= place < length)
    marks = tuple(mark for mark in map(_plain, found.marks) if _is_inside(mark, length))
    return Check(float(found.score), bool(found.passed), str(found.why), where, marks)


def _is_inside(mark: Mark, length: int) -> bool:
    """Whether a mark is of words that a text has, or of what it lacks."""
    return mark.start is None or mark.end is None or 0 <= mark.start <= mark.end < length


def _plain(mark: Mark) -> Mark:
    if tuple(map(type, mark)) == _PLAIN:
        return mark
    start, end = (None if end is None else int(end) for end in mark[:2])
    return Mark(start, end, str(mark.label), bool(mark.met), str(mark.wanted))


def is_range(found: Any) -> bool:
    """Whether this is a pair of whole numbers."""
    return isinstance(found, tuple | list) and len(found) == 2 and all(type(number) is int for number in found)


def numbered(names: Sequence[str]) -> list[str]:
    """The names of controls that stand side by side, those of one kind told apart: contains, contains 2.

    A number that another control has for its name is left out, so that no two labels are the same.
    """
    found: list[str] = []
    taken = set(names)
    for at, name in enumerate(names):
        number, label = names[:at].count(name) + 1, name
        while number > 1 and (label := f"{name} {number}") in taken:
            number += 1
        taken.add(label)
        found.append(label)
    return found


def mean_score(checks: Mapping[str, Check]) -> float:
    """Mean score of the checks of a text, by control; 1 where there are none."""
    return sum(check.score for check in checks.values()) / len(checks) if checks else 1.0


def joined(row: Sequence[Check]) -> Check:
    """One verdict of several that are all to hold: passed if all are; the score is their mean."""
    where = sorted({place for check in row for place in check.where})
    score = sum(check.score for check in row) / len(row)
    marks = tuple(mark for check in row for mark in check.seen)
    return Check(score, all(check.passed for check in row), "; ".join(check.why for check in row), tuple(where), marks)


def turned_round(check: Check) -> Check:
    """The verdict of the contrary. What was seen stays, and is at fault where the contrary does not hold.

    The score is 1 where the contrary holds, however little the check fails by. Else it is what the score of the check
    leaves of 1, but never 1 itself: a text that is only just what it is not to be is nearer to the contrary.
    """
    passed = not check.passed
    score = 1.0 if passed else min(round(1 - check.score, 6), MOST_FAILED)
    marks = tuple(mark._replace(met=passed, wanted="") for mark in check.seen if mark.start is not None)
    return Check(score, passed, f"not: {check.why}", marks=marks)
