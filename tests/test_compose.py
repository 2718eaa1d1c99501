import math
from collections.abc import Sequence

import pytest
import torch

from dlmctl.control.base import All, AnyOf, Check, Control, ControlParams, Not


class HasParams(ControlParams):
    word: str
    low: int = 0
    high: int = 99


class Has(Control[HasParams]):
    """Holds one word; its energy is read off ``state.x``."""

    name = "has"
    Params = HasParams

    def word_count(self, sample):
        return self.of(sample).low, self.of(sample).high

    def energy(self, state):
        return state.x[..., len(self.of(0).word)].sum(1)

    def check(self, words: Sequence[Sequence[str]]):
        found = [self.of(i).word in text for i, text in enumerate(words)]
        return [
            Check(float(ok), ok, f"{self.of(i).word} {'is' if ok else 'is not'} there") for i, ok in enumerate(found)
        ]


class State:
    def __init__(self, x):
        self.x = x


STATE = State(torch.arange(24.0).reshape(2, 3, 4) / 24)
A, B = Has(word="a"), Has(word="bb", low=5, high=7)


def test_all_adds_weighted_energies():
    both = A & 0.5 * B
    assert torch.allclose(both.energy(STATE), A.energy(STATE) + 0.5 * B.energy(STATE))
    assert A.weight == B.weight == 1.0


def test_operators_build_the_combinations():
    assert isinstance(A & B & A, All)
    assert len((A & B & A).parts) == 3
    assert isinstance(A | B, AnyOf)
    assert isinstance(~A, Not)


def test_any_is_a_soft_minimum():
    energy = (A | B).energy(STATE)
    smallest = torch.minimum(A.energy(STATE), B.energy(STATE))
    assert bool((energy <= smallest).all())
    assert bool((energy >= smallest - math.log(2)).all())


def test_not_of_not_is_the_control():
    assert torch.allclose((~~A).energy(STATE), A.energy(STATE), atol=1e-4)


def test_not_is_finite_where_the_control_is_certain():
    certain = State(torch.zeros(1, 2, 4, requires_grad=True))
    energy = (~A).energy(certain)
    energy.sum().backward()
    assert bool(torch.isfinite(energy).all())
    assert bool(torch.isfinite(certain.x.grad).all())


@pytest.mark.parametrize(
    ("control", "passed"),
    [(A & B, [True, False, False]), (A | B, [True, True, False]), (~A, [False, False, True])],
)
def test_checks_combine(control, passed):
    texts = [["a", "bb"], ["a"], ["c"]]
    assert [check.passed for check in control.check(texts)] == passed


def test_word_counts_overlap():
    assert (A & B).word_count(0) == (5, 7)
    low, high = (B & Has(word="c", low=8, high=9)).word_count(0)
    assert low > high


def test_parameter_sets_are_dealt_out():
    each = Has.each([HasParams(word="a"), HasParams(word="bb")])
    assert [each.of(i).word for i in range(4)] == ["a", "bb", "a", "bb"]
    assert [each.only([3, 2]).of(i).word for i in range(2)] == ["bb", "a"]
    assert [(each & A).only([1]).check([["bb", "a"]])[0].passed] == [True]
