"""Inference word by word, in log space: for automata with many states, and for gradients.

A GPU takes the forward steps of ``chain``, and may read two words at a time (``pairs``).

Arguments that all functions share:
    scores: ``[B, N, C]``, log-probabilities of the classes, or of the likeliest word of each for the best path.
    spans: of the words, with N places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.control.automata import chain
from dlmctl.control.automata.pairs import Pairs
from dlmctl.control.automata.spans import Spans
from dlmctl.control.automata.sums import at_places, gathered
from dlmctl.control.automata.transitions import Automata, Tables, in_pieces, joined


def log_probability(scores: Tensor, automata: Automata, spans: Spans) -> Tensor:
    """Log-probability of the language: ``[B]``; differentiable."""
    return _backward(automata.step_scores(scores), automata, spans)[:, 0, 0]


def log_ratios(scores: Tensor, automata: Automata, spans: Spans) -> tuple[Tensor, Tensor]:
    """Log-probability of the language ``[B]``, and log p(class | language) - log p(class): ``[B, N, C]``."""
    if not isinstance(automata, Tables) or (pairs := _pairs(scores, automata)) is None:
        return _log_ratios(scores, automata, spans)
    words = pairs.scores(scores, spans.within)
    log_p, by_pair = _log_ratios(pairs.of_pairs(words), automata._replace(table=pairs.table), None)
    return log_p, pairs.per_word(by_pair, words)[:, : scores.shape[1]]


def best_path(scores: Tensor, automata: Automata, spans: Spans) -> tuple[Tensor, Tensor]:
    """The log-probability ``[B]`` of the best path, and its classes ``[B, N]``."""
    if isinstance(automata, Tables) and (pairs := _pairs(scores, automata)) is not None:
        words = pairs.scores(scores, spans.within)
        by_pair, tables = pairs.of_pairs(words, best=True), automata._replace(table=pairs.table)
        best, states = chain.best_states(by_pair, tables, None)
        return best, pairs.best_words(tables.best_classes(states, by_pair), words)[:, : scores.shape[1]]
    step_scores = automata.step_scores(scores, best=True)
    if chain.is_for(scores.device):
        best, states = chain.best_states(step_scores, automata, spans)
        return best, automata.best_classes(states, scores)
    backwards = _backward(step_scores, automata, spans, best=True)
    state, path = torch.zeros_like(automata.classes[:, 0]), list[Tensor]()
    for at, is_word in enumerate(spans.within.unbind(1)):
        best_class, successor = automata.best_step(state, scores[:, at], step_scores[:, at], backwards[:, at + 1])
        path.append(best_class)
        state = torch.where(is_word, successor, state)
    return backwards[:, 0, 0], torch.stack(path, 1)


def drawn_states(scores: Tensor, automata: Automata, spans: Spans, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability of the language ``[B]``, and the states ``[B, N + 1]`` between the words of a drawn text.

    Args:
        uniform: numbers in [0, 1), ``[B, N]``.
    """
    step_scores = automata.step_scores(scores)
    backwards = _backward(step_scores, automata, spans)
    log_p = backwards[:, 0, 0]
    if chain.is_for(scores.device):
        return log_p, chain.drawn_states(step_scores, automata, backwards, spans, uniform)
    state = torch.zeros_like(automata.classes[:, 0])
    states = [state]
    for at, is_word in enumerate(spans.within.unbind(1)):
        reached = automata.drawn_step(state, step_scores[:, at], backwards[:, at + 1], uniform[:, at])
        state = torch.where(is_word, reached, state)
        states.append(state)
    return log_p, torch.stack(states, 1)


def _pairs(scores: Tensor, tables: Tables) -> Pairs | None:
    """The pairs of words, if texts of so many words are read by pairs."""
    return tables.pairs if tables.pairs is not None and tables.pairs.fit(scores.shape[1]) else None


def _log_ratios(scores: Tensor, automata: Automata, spans: Spans | None) -> tuple[Tensor, Tensor]:
    """As ``log_ratios``, one word at a time; ``spans`` is None if all places are words."""
    step_scores = automata.step_scores(scores)
    backwards = _backward(step_scores, automata, spans)
    log_p = backwards[:, 0, 0]
    if spans is None or chain.is_for(scores.device):
        return log_p, automata.per_class(chain.without_words(step_scores, automata, backwards))
    pieces = in_pieces(_forward(step_scores, automata, spans), automata, backwards)
    reached = ((forward, gathered(after, automata.target)) for forward, _, after in pieces)
    without_word = joined([automata.without_word(*piece) for piece in reached])
    return log_p, automata.per_class(without_word - log_p[:, None, None])


def _backward(step_scores: Tensor, automata: Automata, spans: Spans | None, best: bool = False) -> Tensor:
    """Log-probability of acceptance, or of the best path to it, from each state: ``[B, N + 1, S]``.

    Before each word, and after the last. ``step_scores [B, N, ...]`` are those of ``Tables``.
    """
    if spans is not None:
        # For one call less per word, all texts are moved to end at the last place.
        step_scores = at_places(step_scores, spans.at_end)
    backward = [automata.ends.to(step_scores.dtype)]
    for scores in reversed(step_scores.unbind(1)):
        backward.append(automata.step_backward(scores, backward[-1], best))
    backwards = torch.stack(backward[::-1], 1)
    return backwards if spans is None else at_places(backwards, spans.moved)


def _forward(step_scores: Tensor, automata: Automata, spans: Spans) -> Tensor:
    """Log-probability to be in each state before each word, ``[B, N, S]``."""
    forward = torch.full_like(automata.ends, -torch.inf, dtype=step_scores.dtype)
    forward[:, 0] = 0.0
    forwards = list[Tensor]()
    for scores, is_word in zip(step_scores.unbind(1), spans.within.unbind(1), strict=True):
        forwards.append(forward)
        forward = torch.where(is_word[:, None], automata.step_forward(scores, forward), forward)
    return torch.stack(forwards, 1)
