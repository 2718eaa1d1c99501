"""Small languages, and all of their texts."""

import itertools

import torch

from dlmctl.control.automata import languages
from dlmctl.control.automata.dfa import Automaton, reduced
from dlmctl.control.automata.product import lengths
from dlmctl.control.automata.regex import parse

ALPHABET = languages.Alphabet([None, "a", "b", "c", "d", None])
SIZE = len(ALPHABET.words)


def pattern(text):
    return languages.pattern(parse(text, str.split), ALPHABET)


def random_automaton(seed):
    """A random automaton of up to 6 states whose language has a text of every length from 1 to 5."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(100):
        states = int(torch.randint(2, 7, (), generator=generator))
        table = torch.randint(-1, states, (states, 4), generator=generator)
        table[:, 0] = -1
        accepting = torch.rand(states, generator=generator) < 0.4
        classes = torch.tensor([0, 1, 2, 3, 1, 0])
        automaton = reduced(Automaton(classes.numpy(), table.numpy(), accepting.numpy()))
        if lengths(automaton, 5)[1:].all():
            return automaton
    raise AssertionError("no such language")


def random_log_probs(rows, length, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, length, SIZE, generator=generator, dtype=dtype)).log_softmax(-1)


def close(actual, expected, atol):
    return bool((actual - expected).abs().max() <= atol)


def enumerated(automaton, log_probs, words):
    """log p of every text of ``words`` words in the language, for log-probabilities ``[L, V]`` with START first."""
    log_probs_of = {}
    for text in itertools.product(range(SIZE), repeat=words):
        if automaton.accepts(text):
            log_probs_of[text] = float(sum(log_probs[at + 1, token] for at, token in enumerate(text)))
    return log_probs_of
