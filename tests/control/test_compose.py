"""How controls combine: their energies, their verdicts, and the parameters of each sample."""

from pathlib import Path

import pytest
import torch

from dlmctl.control.base import All, AnyOf, Control, ControlParams, Not
from dlmctl.control.check import Check, unique_labels
from dlmctl.control.combined import check_all, prepare_all
from dlmctl.control.negation import PreparedNot
from dlmctl.control.prepared import Part, Prepared
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw


class HasParams(ControlParams):
    word: str
    low: int = 0
    high: int = 99


class PreparedHas(Prepared):
    """Its energy is an element of ``state.x``."""

    def __init__(self, words):
        self.places = torch.tensor([len(word) for word in words])

    def energy(self, state):
        return state.x[torch.arange(len(state.x)), :, self.places].sum(1)


class Has(Control[HasParams]):
    """Requires one word."""

    name = "has"
    Params = HasParams

    def word_range(self, params):
        return params.low, params.high

    def prepare(self, batch):
        return PreparedHas([params.word for params in batch.params])

    def check(self, params, words):
        ok = params.word in words
        return Check(
            float(ok), ok, f"{params.word} {'is' if ok else 'is not'} there", () if ok else (len(params.word),)
        )


class State:
    def __init__(self, x):
        self.x = x


STATE = State(torch.arange(24.0).reshape(2, 3, 4) / 24)
A, B = Has(word="a"), Has(word="bb", low=5, high=7)


def energy(control, state=STATE):
    draws = [Draw(0, sample) for sample in range(len(state.x))]
    return control.ready(BatchContext(None, None, Path(), draws, [Layout(3, None)] * len(draws))).energy(state)


def test_all_adds_weighted_energies():
    assert torch.allclose(energy(A & 0.5 * B), energy(A) + 0.5 * energy(B))
    assert torch.equal(energy(A & 0.5 * B), energy(A & B * 0.5))
    assert A.weight == B.weight == 1.0


def test_a_weight_of_all_is_one_of_each_part():
    draws = [Draw(0, 0), Draw(0, 1)]
    ready = prepare_all(2 * (A & 0.5 * B), BatchContext(None, None, Path(), draws, [Layout(3, None)] * 2))
    assert [part.weight for part in ready.parts] == [2.0, 1.0]


def test_operators_build_the_combinations():
    assert isinstance(A & B & A, All)
    assert len((A & B & A).parts) == 3
    assert isinstance(A | B, AnyOf)
    assert isinstance(~A, Not)


def test_not_of_not_is_the_control():
    assert ~~A is A


def test_not_is_minus_log_of_the_rest():
    assert torch.allclose(energy(~A), -torch.log(1 - torch.exp(-energy(A))), atol=1e-5)


def test_a_weight_within_not_counts():
    assert torch.allclose(energy(~(3 * A)), 3 * energy(~A))
    assert bool((energy(~(0 * A)) == 0).all())


def test_not_is_finite_where_the_control_is_certain():
    certain = State(torch.zeros(1, 2, 4, requires_grad=True))
    energies = energy(~A, certain)
    energies.sum().backward()
    assert bool(torch.isfinite(energies).all())
    assert bool(torch.isfinite(certain.x.grad).all())


@pytest.mark.parametrize(
    ("control", "passed"),
    [(A & B, [True, False, False]), (A | B, [True, True, False]), (~A, [False, False, True])],
)
def test_checks_combine(control, passed):
    texts = [["a", "bb"], ["a"], ["c"]]
    assert [check.passed for check in control.verdicts(range(3), texts)] == passed
    assert [control(text).passed for text in texts] == passed


def test_all_gathers_the_places_at_fault():
    assert (B & A & B)(["c", "d", "e"]).where == (1, 2)
    assert (B & A & B)(["c", "d"]).where == (1,)  # the text has no more


def test_lengths_are_those_of_the_first_that_knows_any(monkeypatch):
    monkeypatch.setattr(Has, "lengths", lambda self, params, most: {"a": (), "bb": (0, 0)}.get(params.word, (0, 2)))
    assert A.lengths_of(0, 1) is B.lengths_of(0, 1) is (A & B).lengths_of(0, 1) is None
    assert (A & B & Has(word="c")).lengths_of(0, 1) == [0, 2]
    assert (A | Has(word="c")).lengths_of(0, 1) is None


def test_word_ranges_overlap():
    assert (A & B).range_of(0) == (5, 7)
    assert (A | B).range_of(0) is None
    low, high = (B & Has(word="c", low=8, high=9)).range_of(0)
    assert low > high


def test_parameter_sets_are_dealt_out():
    each = Has.each([HasParams(word="a"), HasParams(word="bb")])
    assert [each.dealt(i).word for i in range(4)] == ["a", "bb", "a", "bb"]
    assert [check.passed for check in each.verdicts([3, 2], [["bb"], ["bb"]])] == [True, False]
    assert [check.passed for check in (each & A).verdicts([1], [["bb", "a"]])] == [True]
    later = BatchContext(None, None, Path(), [Draw(0, 3), Draw(0, 2)], [Layout(3, None)] * 2)
    assert each.ready(later).places.tolist() == [2, 1]


def test_controls_of_one_kind_are_numbered():
    (checks,) = check_all(A & B & ~A & Has(word="c"), [0], [["a"]])
    assert {label: check.passed for label, check in checks.items()} == {
        "has": True,
        "has 2": False,
        "not": False,
        "has 3": False,
    }
    assert check_all(None, [0, 1], [["a"], []]) == [{}, {}]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["has 2", "has", "has"], ["has 2", "has", "has 3"]),
        (["has", "has", "has 2"], ["has", "has 3", "has 2"]),
        (["has 2", "has", "has 2", "has", "has"], ["has 2", "has", "has 2 2", "has 3", "has 4"]),
    ],
)
def test_a_name_that_looks_like_a_number_of_another_keeps_its_verdict(names, labels):
    assert unique_labels(names) == labels


@pytest.mark.parametrize("least", [1e-4, 1e-6, 1e-8, 0.0, -2.0])
def test_not_steers_where_the_control_is_certain(least):
    """Also if an energy is 0 or less, where a clamp would give no gradient."""
    leaf = torch.full((1,), least, dtype=torch.float64, requires_grad=True)
    Fixed = type("Fixed", (Prepared,), {"energy": lambda self, state: leaf})
    energies = PreparedNot(Part("fixed", 1.0, Fixed())).energy(State(torch.zeros(1, 2, 4)))
    (slope,) = torch.autograd.grad(energies.sum(), leaf)
    assert bool(torch.isfinite(energies).all())
    assert -1e6 < float(slope) < -100
