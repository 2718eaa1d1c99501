"""The verdict on a text, the marks that its judge leaves there, and the validation of what an author's code returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

# The highest score of a text that fails under `not`, even if it satisfies the control with a score of 0.
MAX_FAILED_SCORE = 0.99

# What tables have of every verdict, in columns that no measured value may have the name of.
VERDICT_COLUMNS = ("score", "passed", "why")
_NO_VALUES: Mapping[str, float] = {}


class Mark(NamedTuple):
    """What a judge found at some words of a text, for display.

    Attributes:
        start, end: the first and last word, from 0; None for what the text lacks.
        label: what was found there, such as a tag; empty if it is the words themselves.
        met: whether it is as wanted, or nothing is wanted there.
        wanted: what should have been found, if something else was.
    """

    start: int | None
    end: int | None
    label: str = ""
    met: bool = True
    wanted: str = ""

    def to_list(self) -> list[Any]:
        """The mark as JSON: the fields in order, without trailing ones that have their default."""
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
        where: the words at fault, counted from 0, if single words can be named.
        marks: what the judge found, word by word or span by span; see ``seen``. Positions outside of the text are
            dropped, here and from ``where``.
        values: what the judge measured, by name, such as the number of words: a column each in tables.
    """

    score: float
    passed: bool
    why: str
    where: tuple[int, ...] = ()
    marks: tuple[Mark, ...] = ()
    values: Mapping[str, float] = _NO_VALUES

    @property
    def seen(self) -> tuple[Mark, ...]:
        """The marks, or if there are none, one on each word at fault."""
        return self.marks or tuple(Mark(position, position, met=False) for position in self.where)

    def __repr__(self) -> str:
        """The verdict without its marks, which may be many."""
        return f"Check(score={self.score!r}, passed={self.passed!r}, why={self.why!r}, where={self.where!r})"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain values."""
        return {
            "score": self.score,
            "passed": self.passed,
            "why": self.why,
            "where": list(self.where),
            "marks": [mark.to_list() for mark in self.seen],
            **({"values": dict(self.values)} if self.values else {}),
        }


def normalised_checks(
    returned: Sequence[Any], texts: Sequence[Sequence[str]], measures: Sequence[str]
) -> list[Check | None]:
    """Verdicts on texts with plain Python values, which can be written as JSON; None for what is no valid verdict.
    Positions outside of a text are dropped.

    Args:
        measures: the names that values may have.
    """
    pairs = zip(returned, texts, strict=True)
    return [_normalised(check, len(words), measures) for check, words in pairs]


def _normalised(check: Any, length: int, measures: Sequence[str]) -> Check | None:
    if not isinstance(check, Check) or not isinstance(check.score, Real) or not 0 <= check.score <= 1:
        return None
    if check.passed not in (True, False):  # NumPy's truth values equal these, but are not instances of bool
        return None
    if not all(isinstance(mark, Mark) and (mark.start is None) == (mark.end is None) for mark in check.marks):
        return None
    if not all(isinstance(value, Real) and math.isfinite(value) for value in check.values.values()):
        return None
    if not check.values.keys() <= {*measures}.difference(VERDICT_COLUMNS):
        return None
    where = tuple(position for position in map(int, check.where) if 0 <= position < length)
    marks = tuple(mark for mark in map(_plain, check.marks) if _is_inside(mark, length))
    values = {str(name): float(value) for name, value in check.values.items()}
    return Check(float(check.score), bool(check.passed), str(check.why), where, marks, values)


def _is_inside(mark: Mark, length: int) -> bool:
    """Whether a mark is on words of the text, or for something that the text lacks."""
    return mark.start is None or mark.end is None or 0 <= mark.start <= mark.end < length


def _plain(mark: Mark) -> Mark:
    if tuple(map(type, mark)) == _PLAIN:
        return mark
    start, end = (None if bound is None else int(bound) for bound in mark[:2])
    return Mark(start, end, str(mark.label), bool(mark.met), str(mark.wanted))


def is_range(value: Any) -> bool:
    """Whether a value is a pair of whole numbers."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(type(number) is int for number in value)


def unique_labels(names: Sequence[str]) -> list[str]:
    """The names of several controls as unique labels: contains, contains 2.

    A label that is the name of another control is skipped, so that no two labels are the same.
    """
    labels: list[str] = []
    taken = set(names)
    for at, name in enumerate(names):
        number, label = names[:at].count(name) + 1, name
        while number > 1 and (label := f"{name} {number}") in taken:
            number += 1
        taken.add(label)
        labels.append(label)
    return labels


def mean_score(checks: Mapping[str, Check]) -> float:
    """Mean score of the checks of a text, by control; 1 if there are none."""
    return sum(check.score for check in checks.values()) / len(checks) if checks else 1.0


def merge_checks(checks: Sequence[Check]) -> Check:
    """One verdict for several that must all hold: passed if all are; the score is their mean.

    Values that several checks measured under the same name are left out, since nobody could tell whose one is.
    """
    where = sorted({position for check in checks for position in check.where})
    score = sum(check.score for check in checks) / len(checks)
    marks = tuple(mark for check in checks for mark in check.seen)
    why = "; ".join(check.why for check in checks)
    measured = [name for check in checks for name in check.values]
    values = {name: value for check in checks for name, value in check.values.items() if measured.count(name) == 1}
    return Check(score, all(check.passed for check in checks), why, tuple(where), marks, values)


def negated_check(check: Check) -> Check:
    """The verdict under ``not``. The marks stay, and are at fault if the text fails.

    The score is 1 if the text passes, however narrowly it failed the check. Otherwise it is 1 minus the score of the
    check, but always below 1: the less the check is satisfied, the closer the text is to passing.
    """
    passed = not check.passed
    score = 1.0 if passed else min(round(1 - check.score, 6), MAX_FAILED_SCORE)
    marks = tuple(mark._replace(met=passed, wanted="") for mark in check.seen if mark.start is not None)
    return Check(score, passed, f"not: {check.why}", marks=marks, values=check.values)
