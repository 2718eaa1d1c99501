"""Texts drawn from a language, against enumeration of all of them."""

import math

import pytest
import torch

from dlmctl.control.automata import chain, scan, transitions
from dlmctl.control.automata.posterior import draw
from dlmctl.control.automata.spans import spans_of
from dlmctl.control.automata.transitions import stacked
from tests.automata.small_languages import close, enumerated, pattern, random_automaton, random_log_probs

# The least cells of a table that becomes edges, whether to take the steps of a GPU, and the most numbers for all words
# at once.
TABLES, EDGES = 1 << 16, 0
FORMS = {
    "tables": (TABLES, False, 0),
    "tables, as on a GPU": (TABLES, True, 0),
    "tables, as on a GPU, at once": (TABLES, True, scan.MOST),
    "edges": (EDGES, False, 0),
    "edges, as on a GPU": (EDGES, True, 0),
}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    choose(request.param, monkeypatch)


def choose(form, monkeypatch):
    large, on_gpu, at_once = FORMS[form]
    monkeypatch.setattr(transitions, "LARGE", large)
    monkeypatch.setattr(transitions, "SPARSE", 0)
    monkeypatch.setattr(chain, "ON_CPU", on_gpu)
    monkeypatch.setattr(scan, "MOST_CPU", at_once)


def texts_of(log_probs, likely, automata, words, seed=0, **options):
    """The ids of one drawn text for each row: the only word left at each place, or one of several, drawn alone."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(log_probs.shape[:2], generator=generator)
    left = draw(log_probs, likely, stacked(automata), spans_of(torch.tensor(words)), uniform, **options)
    # Gumbel-max: each word drawn for itself.
    gumbel = -(-torch.rand(left.shape, generator=generator, dtype=left.dtype).log()).log()
    return [tuple(row[1 : count + 1].tolist()) for row, count in zip((left + gumbel).argmax(-1), words, strict=True)]


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("sharpness", [1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_texts_have_their_probability(seed, sharpness):
    automaton, words, many = random_automaton(seed), 3 + seed % 3, 2000
    log_probs = random_log_probs(1, 8, seed=seed)
    # Each class at the power of the sharpness; the words of a class keep their proportions.
    sums = [
        torch.stack([place[automaton.classes == number].logsumexp(0) for number in automaton.classes])
        for place in log_probs[0]
    ]
    expected = enumerated(automaton, log_probs[0] + (sharpness - 1) * torch.stack(sums), words)
    total = math.log(sum(map(math.exp, expected.values())))
    rows = log_probs.expand(many, -1, -1)
    options = {} if sharpness == 1 else {"sharpness": torch.full((many, 1, 1), sharpness)}
    texts = texts_of(rows, rows, [automaton] * many, [words] * many, seed, **options)
    assert set(texts) <= set(expected)
    for text, log_p in expected.items():
        p = math.exp(log_p - total)
        assert abs(texts.count(text) / many - p) <= 5 * math.sqrt(p * (1 - p) / many) + 3 / many


def test_every_form_draws_the_same_texts_and_each_row_as_alone():
    automata = [random_automaton(seed) for seed in range(12)] + [pattern("<any>* a (b|c)+ <any>?")] * 2
    words = [1 + row % 5 for row in range(12)] + [4, 5]
    log_probs = random_log_probs(len(automata), 8, seed=1)
    found = []
    for form in FORMS:
        with pytest.MonkeyPatch.context() as patch:
            choose(form, patch)
            uniform = torch.rand(len(automata), 8, generator=torch.Generator().manual_seed(3))
            together = draw(log_probs, log_probs, stacked(automata), spans_of(torch.tensor(words)), uniform)
            for row, automaton in enumerate(automata):
                one, spans = slice(row, row + 1), spans_of(torch.tensor(words[row : row + 1]))
                alone = draw(log_probs[one], log_probs[one], stacked([automaton]), spans, uniform[one])
                assert torch.equal(alone[0], together[row])
            found.append(together)
    assert all(torch.equal(each, found[0]) for each in found)


@pytest.mark.usefixtures("form")
def test_unlikely_words_are_drawn_only_where_no_text_is_left_without_them():
    automaton, words, many = pattern("<any>* a <any>*"), 5, 500
    log_probs = random_log_probs(1, 7, seed=2).expand(many, -1, -1)
    likely = log_probs.clone()
    likely[..., 1] = -torch.inf
    texts = texts_of(log_probs, likely, [automaton] * many, [words] * many)
    assert {text.count(1) for text in texts} == {1}
    assert len({text.index(1) for text in texts}) == words
    # Where there is another way it is taken.
    texts = texts_of(log_probs, likely, [pattern("<any>* (a|b) <any>*")] * many, [words] * many)
    assert not any(1 in text for text in texts)


@pytest.mark.usefixtures("form")
def test_a_row_whose_language_is_impossible_keeps_its_likely_words():
    log_probs = random_log_probs(2, 7, seed=3)
    log_probs[0, :, 1] = -torch.inf
    likely = log_probs.masked_fill(log_probs < -3, -torch.inf)
    automata = [pattern("<any>* a <any>*")] * 2
    left = draw(log_probs, likely, stacked(automata), spans_of(torch.tensor([4, 4])), torch.rand(2, 7))
    assert torch.equal(left[0], likely[0])
    assert not torch.equal(left[1], likely[1])
    # There is no way on from the end of the language.
    alone = draw(log_probs[1:], likely[1:], stacked([pattern("a b")]), spans_of(torch.tensor([4])), torch.rand(1, 7))
    assert torch.equal(alone[0], likely[1])


def test_long_texts_keep_within_the_language_in_single_precision():
    automaton, rows = pattern("a <any>* b b <any>* c"), 16
    log_probs = random_log_probs(rows, 62, seed=4, dtype=torch.float32)
    texts = texts_of(log_probs / 0.05, log_probs / 0.05, [automaton] * rows, [60] * rows)
    assert all(automaton.accepts(text) for text in texts)
    assert close(torch.tensor([float(len(set(texts)))]), torch.tensor([float(rows)]), 0.0)
