"""The parameters of controls are named where notebooks and editors look for them."""

from __future__ import annotations

import inspect

import pytest

from controls import Contains, Length, Lexicon, Pos, Semantic
from dlmctl.control.base import All, Control, ControlParams
from dlmctl.errors import UserError


class OddParams(ControlParams):
    first: int = 1
    second: str


class Odd(Control[OddParams]):
    """An odd control."""

    name, Params = "odd", OddParams

    def check(self, params, words):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("kind", "signature"),
    [
        (Length, "(words: int, tolerance: int = 0)"),
        (Pos, "(tags: list[str], pass_at: float = 1.0, judge: str | None = None)"),
        (Odd, "(first: int = 1, *, second: str)"),
        (Contains, "(*phrases: 'str | Iterable[str]')"),
        (All, "(parts: 'Sequence[Control[Any]]')"),
        (Control, "(*args: 'Any', **params: 'Any')"),
    ],
)
def test_a_class_shows_its_parameters_by_name(kind, signature):
    assert str(inspect.signature(kind)) == signature


@pytest.mark.parametrize(("kind", "field"), [(Semantic, "exclusive"), (Lexicon, "where")])
def test_a_class_that_takes_any_name_says_so(kind, field):
    parameters = inspect.signature(kind).parameters
    assert field in parameters
    assert list(parameters.values())[-1].kind == inspect.Parameter.VAR_KEYWORD


def test_the_call_of_a_control_is_that_of_its_verdict():
    assert list(inspect.signature(Length(3)).parameters) == ["words"]


def test_help_says_what_each_parameter_means():
    assert "\n    tolerance: how many words more or fewer are accepted as well" in Length.getdoc()
    assert Odd.getdoc() == "An odd control."


@pytest.mark.parametrize("combine", [lambda a, b: a and b, lambda a, b: a or b, lambda a, b: not a])
def test_python_s_own_and_or_and_not_are_refused_rather_than_dropping_a_control(combine):
    with pytest.raises(UserError, match=r"control 'length': .* do not combine controls\. Use &, \| and ~"):
        combine(Length(3), Contains("pub"))
