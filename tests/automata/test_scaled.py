"""Sums in probability space, of both kinds, against those in log space, and what happens where they underflow."""

import math

import numpy as np
import pytest
import torch

from dlmctl.control.automata import chain, class_sums, scaled, scan, transitions
from dlmctl.control.automata.dfa import Automaton, reduced
from dlmctl.control.automata.posterior import condition, infer, log_probability
from dlmctl.control.automata.product import lengths
from dlmctl.control.automata.spans import spans_of
from dlmctl.control.automata.sums import scatter_log_sum
from dlmctl.control.automata.transitions import stacked

VOCABULARY, WORDS = 300, 12


def automaton_of(seed):
    """A random automaton of up to 30 states and 8 classes over 300 tokens, with texts of 1 to 12 words."""
    rng = np.random.default_rng(seed)
    while True:
        states = int(rng.integers(5, 30))
        table = rng.integers(0, states, (states, 9))
        table[rng.random(table.shape) < 0.5] = -1
        table[:, 0] = -1
        found = reduced(Automaton(rng.integers(0, 9, VOCABULARY), table, rng.random(states) < 0.4))
        if lengths(found, WORDS)[1:].all():
            return found


def log_probs_of(kind, rows, seed):
    """``[rows, 14, V]``: spread over the words, nearly sure of one, half written, or with most words excluded."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, WORDS + 2, VOCABULARY, generator=generator, dtype=torch.float64)
    if kind == "sure":
        logits = logits * 60
    if kind == "written":
        word = torch.randint(VOCABULARY, (rows, WORDS + 2, 1), generator=generator)
        is_written = torch.rand(rows, WORDS + 2, 1, generator=generator) < 0.3
        logits = logits.masked_fill(is_written & (torch.arange(VOCABULARY) != word), -torch.inf)
    if kind == "excluded":
        logits = logits.masked_fill(torch.rand(logits.shape, generator=generator) < 0.9, -torch.inf)
    return logits.log_softmax(-1)


@pytest.fixture(params=["tables", "edges"])
def form(request, monkeypatch):
    monkeypatch.setattr(scan, "MOST_CPU", 0)
    if request.param == "edges":
        monkeypatch.setattr(transitions, "LARGE", 0)
        monkeypatch.setattr(transitions, "SPARSE", 0)


@pytest.fixture(params=["scaled", "chain"])
def both(form, request, monkeypatch):
    """The result of a function in log space and in probability space, as on a CPU or as on a GPU."""

    def results(function, *arguments):
        monkeypatch.setattr(scaled, "TRANSITIONS_CPU", None)
        expected = function(*arguments)
        with monkeypatch.context() as patch:
            if request.param == "scaled":
                patch.setattr(scaled, "TRANSITIONS_CPU", 0)
            else:
                patch.setattr(chain, "ON_CPU", True)
            return expected, function(*arguments)

    return results


def close(actual, expected, atol):
    """Whether log-probabilities are the same, -inf among them."""
    both_zero = torch.isneginf(actual) & torch.isneginf(expected)
    return bool((both_zero | ((actual - expected).abs() <= atol)).all())


@pytest.mark.parametrize("kind", ["spread", "sure", "written", "excluded"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_sums_are_those_of_log_space(both, kind, shared):
    rows = [automaton_of(0)] * 12 if shared else [automaton_of(seed) for seed in range(12)]
    automata, words = stacked(rows), torch.arange(1, 13)
    log_probs = log_probs_of(kind, 12, seed=3)
    log_p, log_p_scaled = both(log_probability, log_probs, automata, spans_of(words))
    assert close(log_p_scaled, log_p, 1e-9)
    assert torch.isfinite(log_p).any()
    conditioned, conditioned_scaled = both(condition, log_probs, automata, spans_of(words), 1, 2.0)
    assert close(conditioned_scaled.exp(), conditioned.exp(), 1e-9)
    # What can be said of words that are out of the question differs by rounding alone, too.
    assert close(conditioned_scaled, conditioned, 1e-6)


def test_float32_is_as_close_as_in_log_space(both):
    automata, words = stacked([automaton_of(seed) for seed in range(12)]), torch.arange(1, 13)
    log_probs = log_probs_of("spread", 12, seed=4)
    exact = condition(log_probs, automata, spans_of(words)).exp()
    for conditioned in both(condition, log_probs.float(), automata, spans_of(words)):
        assert float((conditioned.exp() - exact).abs().max()) < 1e-5


CHAIN = Automaton(
    # Words of class 1 must come ten times, or else those of class 2 ten times; then any of class 3.
    np.array([0, 1, 2, 3]),
    np.array(
        [
            [-1, 1, 11, -1],
            *([-1, state + 1, -1, -1] for state in range(1, 10)),
            [-1, -1, -1, 10],
            *([-1, -1, state + 1, -1] for state in range(11, 20)),
            [-1, -1, -1, 20],
        ]
    ),
    np.array([False] * 10 + [True] + [False] * 9 + [True]),
)


def chain_log_probs(one, other):
    """``[1, 13, 4]`` in which a word of class 1 has log-probability ``one``, and one of class 2 ``other``."""
    log_probs = torch.full((1, 13, 4), -torch.inf, dtype=torch.float64)
    log_probs[:, 1:11, 1], log_probs[:, 1:11, 2] = one, other
    log_probs[:, 1:, 3] = 0.0
    return log_probs


@pytest.mark.parametrize(
    ("one", "other"),
    [(-1e3, -1e3 - 0.1), (-50.0, -50.01), (-400.0, -400.0), (-80.0, -80.02), (-1e4, -2e4), (-0.1, -90.0)],
)
def test_underflow_changes_no_sum(both, one, other):
    """Two texts of probability e^-500 and much less, beside words that the language does not allow there."""
    automata, words = stacked([CHAIN]), torch.tensor([11])
    log_probs = chain_log_probs(one, other)
    log_p, log_p_scaled = both(log_probability, log_probs, automata, spans_of(words))
    assert float(log_p) == pytest.approx(10 * one + math.log1p(math.exp(10 * (other - one))), rel=1e-12)
    assert float(log_p_scaled) == pytest.approx(float(log_p), rel=1e-12)
    conditioned, conditioned_scaled = both(condition, log_probs, automata, spans_of(words))
    assert float(conditioned[0, 1, 1].exp()) == pytest.approx(1 / (1 + math.exp(10 * (other - one))), rel=1e-6)
    assert close(conditioned_scaled.exp(), conditioned.exp(), 1e-9)


def test_a_state_that_underflows_is_not_lost_if_all_others_end(both):
    """After ten words the state that is left has e^-900 of the probability; the other one cannot go on."""
    table, log_probs = CHAIN.table.copy(), chain_log_probs(-1e-3, -90.0)
    table[10], table[20] = -1, [-1, -1, 20, -1]
    log_probs[:, 11] = torch.tensor([-torch.inf, -torch.inf, 0.0, -torch.inf])
    automata = stacked([Automaton(CHAIN.classes, table, np.arange(21) == 20), CHAIN])
    log_probs, words = torch.cat([log_probs, chain_log_probs(-0.5, -0.7)]), torch.tensor([11, 11])
    for log_p in both(log_probability, log_probs, automata, spans_of(words)):
        assert log_p.tolist() == pytest.approx([-900.0, -5 + math.log1p(math.exp(-2.0))])
    conditioned, conditioned_scaled = both(condition, log_probs, automata, spans_of(words))
    assert conditioned_scaled[0, 1:12].argmax(-1).tolist() == [2] * 11
    assert close(conditioned_scaled.exp(), conditioned.exp(), 1e-9)


def test_impossible_rows_are_found_without_log_space(form, monkeypatch):
    monkeypatch.setattr(scaled, "TRANSITIONS_CPU", 0)
    monkeypatch.setattr("dlmctl.control.automata.by_word.log_ratios", None)
    automata, spans = stacked([CHAIN, CHAIN]), spans_of(torch.tensor([11, 11]), 11)
    scores = torch.cat([chain_log_probs(-0.1, -torch.inf), chain_log_probs(-0.5, -0.7)])[:, 1:12]
    scores[0, 4] = -torch.inf
    found = infer(scores, automata, spans)
    assert torch.isneginf(found.log_p).tolist() == [True, False]
    assert not found.log_ratio[1].isnan().any()


@pytest.mark.parametrize("kind", ["spread", "sure", "written", "excluded"])
def test_classes_are_summed_alike_wherever_they_are(monkeypatch, kind):
    log_probs = log_probs_of(kind, 3, seed=5)
    log_probs[0, 0], log_probs[1, 1, 257:] = -torch.inf, -torch.inf
    classes = torch.from_numpy(np.stack([automaton_of(seed).classes for seed in range(3)]))
    monkeypatch.setattr(class_sums, "PIECE_CPU", 700)
    summed = class_sums.class_scores(log_probs, classes, 9)
    assert close(summed, scatter_log_sum(log_probs, classes[:, None].expand_as(log_probs), 9), 1e-12)
