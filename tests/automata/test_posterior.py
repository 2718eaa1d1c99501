"""Conditioned word distributions against enumeration of every text."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

from dlmctl.control.automata import chain, languages, pairs, scaled, scan, transitions
from dlmctl.control.automata.phrases import in_likely_order, with_phrases
from dlmctl.control.automata.posterior import condition, likeliest, log_probability
from dlmctl.control.automata.product import complement, intersect_all
from dlmctl.control.automata.regex import parse
from dlmctl.control.automata.spans import spans_of
from dlmctl.control.automata.totals import Quantity, with_total
from dlmctl.control.automata.transitions import stacked
from tests.automata.small_languages import (
    ALPHABET,
    SIZE,
    close,
    enumerated,
    pattern,
    random_automaton,
    random_log_probs,
)

METHODS = ("at once", "word by word", "scaled", "chain", "pairs")


def choose(method, monkeypatch):
    """Every text by this method of inference, whichever would be chosen."""
    monkeypatch.setattr(scan, "MOST_CPU", scan.MOST if method in ("at once", "pairs") else 0)
    monkeypatch.setattr(transitions, "MOST_STATES", 0 if method == "pairs" else scan.MOST_STATES)
    monkeypatch.setattr(scaled, "TRANSITIONS_CPU", 0 if method == "scaled" else None)
    monkeypatch.setattr(chain, "ON_CPU", method == "chain")
    monkeypatch.setattr(pairs, "MOST_CPU", pairs.MOST if method == "pairs" else 0)


@pytest.fixture(params=METHODS)
def method(request, monkeypatch):
    choose(request.param, monkeypatch)


every_method = pytest.mark.usefixtures("method")


@pytest.fixture(scope="module")
def batch():
    automata = [random_automaton(seed) for seed in range(12)] + [pattern("<any>* a (b|c)+ <any>?")] * 2
    words = torch.tensor([1, 2, 3, 4, 5] * 3)[: len(automata)]
    words[-2:] = torch.tensor([4, 5])
    return automata, words, random_log_probs(len(automata), 8, seed=1)


@every_method
def test_the_posterior_is_that_of_enumeration(batch):
    automata, words, log_probs = batch
    conditioned = condition(log_probs, stacked(automata), spans_of(words))
    log_p = log_probability(log_probs, stacked(automata), spans_of(words))
    for row, (automaton, count) in enumerate(zip(automata, words.tolist(), strict=True)):
        texts = enumerated(automaton, log_probs[row], count)
        total = math.log(sum(map(math.exp, texts.values())))
        assert float(log_p[row]) == pytest.approx(total, abs=1e-9)
        expected = torch.zeros(count, SIZE, dtype=torch.float64)
        for text, value in texts.items():
            expected[range(count), text] += math.exp(value - total)
        assert close(conditioned[row, 1 : count + 1].exp(), expected, 1e-9)
        assert torch.equal(conditioned[row, count + 1 :], log_probs[row, count + 1 :])
        assert torch.equal(conditioned[row, 0], log_probs[row, 0])


@every_method
def test_the_likeliest_text_is_that_of_enumeration(batch):
    automata, words, log_probs = batch
    restricted = likeliest(log_probs, stacked(automata), spans_of(words))
    for row, (automaton, count) in enumerate(zip(automata, words.tolist(), strict=True)):
        texts = enumerated(automaton, log_probs[row], count)
        best = max(texts, key=texts.__getitem__)
        assert tuple(restricted[row, 1 : count + 1].argmax(-1).tolist()) == best
        # Any choice of the remaining words is in the language.
        remaining = [(~torch.isneginf(restricted[row, at + 1])).nonzero().flatten().tolist() for at in range(count)]
        assert all(automaton.accepts(text) for text in itertools.product(*remaining))


@every_method
def test_rows_do_not_depend_on_their_batch(batch):
    automata, words, log_probs = batch
    together = condition(log_probs, stacked(automata), spans_of(words))
    for row in range(len(automata)):
        alone = condition(log_probs[row : row + 1], stacked(automata[row : row + 1]), spans_of(words[row : row + 1]))
        assert close(alone[0].exp(), together[row].exp(), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["at once", "chain", "pairs"])
def test_every_method_agrees_with_word_by_word_on_long_texts(monkeypatch, dtype, method):
    words = torch.tensor([64, 63, 33, 32, 17, 5, 2, 1])
    log_probs = random_log_probs(8, 66, seed=5, dtype=dtype)
    log_probs[:, ::3, 3] = -torch.inf
    results = []
    for chosen in (method, "word by word"):
        choose(chosen, monkeypatch)
        automata = stacked([random_automaton(seed) for seed in range(8)])
        log_p = log_probability(log_probs, automata, spans_of(words))
        results.append(
            (
                log_p,
                condition(log_probs, automata, spans_of(words)).exp(),
                likeliest(log_probs, automata, spans_of(words)),
            )
        )
    atol = 1e-4 if dtype == torch.float32 else 1e-12
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-6)
    assert close(results[0][1], results[1][1], atol)
    assert torch.equal(results[0][2], results[1][2])


def test_pairs_of_counted_words_are_as_many_as_their_sums():
    counted = Quantity(np.arange(6), np.array([[-1, 0, 0, 0, 0, 0]]), np.arange(6)[None])
    automaton = with_total(counted, 12, 12)
    table = np.where(automaton.table < 0, len(automaton.table), automaton.table)
    sink = np.full((1, table.shape[1]), len(table))
    after, of = pairs.pairs_of(np.concatenate([table, sink]))
    assert after.shape == (14, 11)  # words of 1 to 5, in pairs or alone, add up to 0 to 10
    sums = np.add.outer(np.arange(6), np.arange(6)).reshape(-1)
    assert len(set(zip(sums, of, strict=True))) == 11


@every_method
def test_ties_are_broken_within_the_language(batch):
    """If all texts are equally likely, the result is not half of one text joined to half of another."""
    automata, words, log_probs = batch
    texts = likeliest(torch.zeros_like(log_probs), stacked(automata), spans_of(words)).argmax(-1)
    for row, (automaton, count) in enumerate(zip(automata, words.tolist(), strict=True)):
        assert automaton.accepts(texts[row, 1 : count + 1].tolist())


def test_one_automaton_for_all_rows_is_stored_once():
    automaton = pattern("a <any>* b")
    assert stacked([automaton] * 64).classes.stride(0) == 0
    assert stacked([automaton, pattern("a b")]).table.shape[0] == 2


@every_method
def test_pinned_words_are_kept_and_impossible_rows_unchanged():
    log_probs = random_log_probs(2, 6, seed=2)
    log_probs[:, 2] = log_probs[:, 2].masked_fill(torch.arange(SIZE) != 2, -torch.inf)  # the second word is "b"
    automata, words = stacked([pattern("a <any> c d"), pattern("a (c|d) c d")]), torch.tensor([4, 4])
    conditioned = condition(log_probs, automata, spans_of(words))
    assert conditioned[0, 1:5].argmax(-1).tolist() == [1, 2, 3, 4]
    assert torch.equal(conditioned[1], log_probs[1])
    assert torch.equal(likeliest(log_probs, automata, spans_of(words))[1], log_probs[1])
    assert torch.isneginf(log_probability(log_probs, automata, spans_of(words))).tolist() == [False, True]


@every_method
def test_float32_handles_very_unlikely_texts():
    log_probs = random_log_probs(1, 32, seed=3) * 40
    log_probs = log_probs.log_softmax(-1)
    automata, words = stacked([pattern("(a b c)+")]), torch.tensor([30])
    exact = log_probability(log_probs, automata, spans_of(words))
    assert exact < -500  # its exponential underflows in float32, and partly in float64
    log_p = log_probability(log_probs.float(), automata, spans_of(words))
    assert float(log_p) == pytest.approx(float(exact), rel=1e-5)
    assert condition(log_probs.float(), automata, spans_of(words))[0, 1:31].argmax(-1).tolist() == [1, 2, 3] * 10


@every_method
def test_the_gradient_is_that_of_finite_differences():
    automata = stacked([random_automaton(0), pattern("<any>* a b <any>*")])
    words = torch.tensor([3, 4])
    logits = random_log_probs(2, 6, 0).requires_grad_()

    def energy(logits):
        return -log_probability(logits.log_softmax(-1), automata, spans_of(words))

    assert torch.autograd.gradcheck(energy, (logits,), atol=1e-7)


@every_method
@pytest.mark.parametrize("sure", [12.0, 30.0, 80.0])
def test_the_gradient_does_not_vanish_at_the_extremes(sure):
    language = languages.containing(ALPHABET, [1])
    words = torch.tensor([4])
    certain = torch.zeros(1, 6, SIZE)
    certain[:, :, 1] = sure  # "a" everywhere; texts without it have a probability of about exp(-4 sure)
    for logits, automaton in ((-certain, language), (certain, complement(language))):
        leaf = logits.clone().requires_grad_()
        log_p = log_probability(leaf.log_softmax(-1), stacked([automaton]), spans_of(words))
        assert log_p < -sure + 2
        log_p.sum().backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad[:, 1:5].norm() > 0.5


def test_sharpness_favours_likelier_places():
    log_probs = torch.full((1, 6, SIZE), 1e-3, dtype=torch.float64)
    log_probs[..., 3] = 1.0
    log_probs[:, 2, 1], log_probs[:, 3, 1] = 0.02, 0.01
    log_probs = log_probs.log()
    automata, words = stacked([languages.containing(ALPHABET, [1])]), torch.tensor([4])
    odds = []
    for sharpness in (1.0, 2.0):
        probability = condition(log_probs, automata, spans_of(words), sharpness=sharpness)[0, :, 1].exp()
        odds.append(float(probability[2] / probability[3]))
    assert odds[0] == pytest.approx(2, rel=0.05)
    assert odds[1] == pytest.approx(4, rel=0.05)


WALKS = [
    intersect_all(
        [
            ("pattern", pattern("a? <any>{2,} (c|d) <any>*")),
            ("contains", languages.containing(ALPHABET, [2, 3])),
            ("avoid", languages.avoiding(ALPHABET, [(1, 1), (4,)])),
        ]
    ),
    pattern("(a b)* c"),
]


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_that_commits_word_by_word_ends_in_the_language(seed):
    """In any order of positions."""
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    automata, words = stacked(WALKS), torch.tensor([6, 5])
    log_probs = random_log_probs(2, 8, seed)
    committed = torch.full((2, 8), -1)
    for place in rng.sample(range(1, 7), 6):
        token = torch.multinomial(
            condition(log_probs, automata, spans_of(words))[:, place].exp(), 1, generator=generator
        )
        committed[:, place : place + 1] = torch.where(place <= words[:, None], token, -1)
        # After each commit the model makes a new prediction.
        log_probs = random_log_probs(2, 8, seed * 100 + place)
        is_allowed = (committed < 0)[..., None] | (torch.arange(SIZE) == committed[..., None])
        log_probs = log_probs.masked_fill(~is_allowed, -torch.inf)
    for row, automaton in enumerate(WALKS):
        assert automaton.accepts(committed[row, 1 : words[row] + 1].tolist())


def test_thirty_phrases_are_all_in_the_likeliest_text_and_in_every_other():
    alphabet = languages.Alphabet([None, *(f"w{index}" for index in range(80)), "."])
    phrases = [(index, index + 30) if index % 2 else (index,) for index in range(1, 31)]
    base = intersect_all(
        [
            ("pattern", languages.pattern(parse("<word>+ .", str.split), alphabet)),
            ("avoid", languages.avoiding(alphabet, [(70,), (1, 2)])),
        ]
    )
    log_probs = torch.randn(1, 62, 82, generator=torch.Generator().manual_seed(4)).log_softmax(-1)
    words = torch.tensor([60])
    automaton = in_likely_order(with_phrases(base, phrases, alphabet), log_probs[0, 1:61], alphabet)
    assert len(automaton.table) < 200
    text = likeliest(log_probs, stacked([automaton]), spans_of(words))[0, 1:61].argmax(-1).tolist()
    assert all(any(tuple(text[at : at + len(p)]) == p for at in range(60)) for p in phrases)
    assert text[-1] == 81
    assert 70 not in text
    mass = condition(log_probs, stacked([automaton]), spans_of(words))[0, 1:61].exp()
    assert torch.all(mass.sum(0)[1:31] >= 1 - 1e-4)
