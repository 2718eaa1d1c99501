"""Tests of one's own: what a function may return, and that nothing else lets a text pass."""

import numpy as np
import pytest

from controls import Predicate
from dlmctl.control.check import Check
from dlmctl.errors import UserError

WORDS = ["a", "b"]


def returning(found):
    """A function that judges every text alike."""

    def judge(text):
        return found

    return judge


@pytest.mark.parametrize(
    ("found", "passed", "why"),
    [
        (True, True, "judge says yes"),
        (np.bool_(False), False, "judge says no"),
        ((False, "too long"), False, "too long"),
        (Check(0.5, True, "half"), True, "half"),
    ],
)
def test_a_verdict_is_taken_as_it_is(found, passed, why):
    check = Predicate(returning(found))(WORDS)
    assert (check.passed, check.why) == (passed, why)


@pytest.mark.parametrize("found", ["no: too bad", None, 1, 0.3, (True, "a", "b"), (True,), ("no", True), (True, 3), []])
def test_what_is_no_verdict_passes_no_text(found):
    with pytest.raises(UserError, match=r"^control 'check': judge must return True or False, ") as caught:
        Predicate(returning(found))(WORDS)
    assert repr(found) in str(caught.value)
