"""Word distributions conditioned on automata: exact for words that are independent given the model's marginals.

Forward-backward over the states of an automaton (Rabiner 1989; for guidance of diffusion models "Diffinity",
arXiv 2602.12468) and the arg max (Viterbi 1967; "DINGO", arXiv 2505.23061). Everything is computed with logarithms, so
nothing underflows in float32, and for all rows and states at once. Positions are a loop that costs O(L S C) a row, for
S states and C classes of words, or where states are few a tree (``scan``), a few calls for any number of positions.
Beside that there is one pass over the ``[L, V]`` log-probabilities.

In all of it ``log_probs [B, L, V]`` may hold -inf for what cannot stand somewhere, ``words [B]`` says how many words
each row has, and ``first`` is the position of the first of them (1, behind START). Other positions stay as they are.
``most`` is the largest of ``words``; where it is not given it is looked for, which waits for a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlmctl.control.automata.scan import Sets, best_states, both_ways, log_total
from dlmctl.control.automata.sums import log_sum, scatter_log_sum, scatter_top
from dlmctl.control.automata.transitions import Automata, Tables


class Inference(NamedTuple):
    """What one pass over a batch found.

    Attributes:
        log_p: ``[B]``, log-probability that words drawn independently make a text of the language; -inf where none can.
        log_ratio: ``[B, N, C]``, log p(class | language) - log p(class) for each of the (at most) N words.
    """

    log_p: Tensor
    log_ratio: Tensor


def log_probability(
    log_probs: Tensor, automata: Automata, words: Tensor, first: int = 1, most: int | None = None
) -> Tensor:
    """``[B]``: log-probability that independent words make a text of the language; differentiable.

    Its negative is an energy. Its gradient by a word's log-probability is the word's posterior probability, so it does
    not die where the language is nearly impossible; for the opposite of a language take its ``complement``, whose
    log-probability does not die where the language is nearly certain, as log(1 - p) would. -inf, without a gradient,
    where no text is possible.
    """
    scores = _class_scores(_window(log_probs, words, first, most), automata)
    sets = _at_once(automata, scores)
    if sets is None:
        return _backward(scores, automata, _within(words, scores))[0][:, 0]
    return log_total(sets.matrices(scores, _within(words, scores)), automata.ends.to(scores.dtype))


def log_probability_by_length(log_probs: Tensor, automata: Automata, longest: int) -> Tensor:
    """``[longest + 1]``: log-probability that so many words, each drawn by ``log_probs [V]``, are in the language."""
    summed = automata.summed(_class_scores(log_probs[None, None], automata))[:, 0]
    ends = automata.ends.to(log_probs.dtype)
    reached = torch.full_like(ends, -torch.inf)
    reached[:, 0] = 0.0
    found = []
    for _ in range(longest + 1):
        found.append(log_sum(reached + ends, 1)[0])
        reached = automata.on(summed, reached)
    return torch.stack(found)


def infer(scores: Tensor, automata: Automata, within: Tensor) -> Inference:
    """Forward-backward for log-probabilities ``scores [B, N, C]`` of the classes of the words at ``within [B, N]``."""
    sets = _at_once(automata, scores)
    if sets is not None:
        before, after, log_p = both_ways(
            sets.matrices(scores, within), automata.ends.to(scores.dtype), sets.unchanged.to(scores.dtype)
        )
        between = automata.between(before[:, : scores.shape[1]], after[:, : scores.shape[1]])
    else:
        behind = _backward(scores, automata, within)
        log_p, between = behind[0][:, 0], _forward(scores, automata, within, behind)
    return Inference(log_p, automata.of_classes(between - log_p[:, None, None]))


def condition(
    log_probs: Tensor,
    automata: Automata,
    words: Tensor,
    first: int = 1,
    sharpness: float | Tensor = 1.0,
    most: int | None = None,
) -> Tensor:
    """Log-probabilities ``[B, L, V]`` of the words given that the text is in the language.

    Normalised where ``log_probs`` are. A row whose language is impossible stays as it is: ``log_probability`` says so.

    ``sharpness`` other than 1 chooses among the ways to be in the language by their probability to that power: 2 keeps
    to likelier places. Words within a class keep their proportions. One number, or one a row, ``[B, 1, 1]``.
    """
    window = _window(log_probs, words, first, most)
    scores, within = _class_scores(window, automata), _within(words, window)
    found = infer(scores * sharpness, automata, within)
    shift = found.log_ratio + (sharpness - 1.0) * scores.clamp(min=torch.finfo(scores.dtype).min)
    changed = window + _of_words(shift, automata)
    return _written(log_probs, torch.where(_possible(found.log_p, within), changed, window), first)


def likeliest(log_probs: Tensor, automata: Automata, words: Tensor, first: int = 1, most: int | None = None) -> Tensor:
    """``log_probs [B, L, V]`` with -inf for all but the word classes of the likeliest text of the language (Viterbi).

    Any choice of the words that are left is in the language; the arg max of each position is the likeliest text of
    all. A row whose language is impossible stays as it is.
    """
    window = _window(log_probs, words, first, most)
    scores, within = _class_tops(window, automata), _within(words, window)
    sets = _at_once(automata, scores)
    if isinstance(automata, Tables) and sets is not None:
        best, states = best_states(sets.matrices(scores, within, best=True), automata.ends.to(scores.dtype))
        path = automata.along(states[:, : scores.shape[1] + 1], scores)
    else:
        behind = _backward(scores, automata, within, best=True)
        best, path = behind[0][:, 0], _path(scores, behind, automata, within)
    return _written(log_probs, _on_path(window, path, automata, _possible(best, within)), first)


def _backward(scores: Tensor, automata: Automata, within: Tensor, best: bool = False) -> list[Tensor]:
    """For 0 to N words read, ``[B, S]``: log-probability to be accepted from each state, or that of the best way."""
    summed = automata.summed(scores, best)
    rest = automata.ends.to(scores.dtype)
    found, inside = [rest], within.unbind(1)
    for at in reversed(range(scores.shape[1])):
        stepped = automata.back(summed[:, at], rest, best)
        rest = torch.where(inside[at][:, None], stepped, rest)
        found.append(rest)
    return found[::-1]


def _forward(scores: Tensor, automata: Automata, within: Tensor, behind: list[Tensor]) -> Tensor:
    """``[B, N, ...]``: log-probability of everything but each word, by what ``of_classes`` takes."""
    reached = torch.full_like(behind[0], -torch.inf)
    reached[:, 0] = 0.0
    summed = automata.summed(scores)
    found, inside = list[Tensor](), within.unbind(1)
    for at in range(scores.shape[1]):
        found.append(automata.between(reached[:, None], behind[at + 1][:, None]))
        stepped = automata.on(summed[:, at], reached)
        reached = torch.where(inside[at][:, None], stepped, reached)
    return torch.cat(found, 1)


def _path(scores: Tensor, behind: list[Tensor], automata: Automata, within: Tensor) -> Tensor:
    """``[B, N]``: the class that is best at each word, by its ``scores [B, N, C]`` and what is ``behind`` it."""
    state = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    path, summed, inside = [], automata.summed(scores, best=True), within.unbind(1)
    for at in range(scores.shape[1]):
        chosen, after = automata.step(state, scores[:, at], summed[:, at], behind[at + 1])
        path.append(chosen)
        state = torch.where(inside[at], after, state)
    return torch.stack(path, 1)


def _on_path(window: Tensor, path: Tensor, automata: Automata, possible: Tensor) -> Tensor:
    """``window [B, N, V]`` with -inf off a ``path [B, N]`` of classes where it is ``possible [B, N, 1]``."""
    off = automata.classes[:, None] != path[..., None]
    return window.masked_fill(off & possible, -torch.inf)


def _at_once(automata: Automata, scores: Tensor) -> Sets | None:
    """What all words are read by at once, where that is the way for ``scores [B, N, C]``; see ``scan``."""
    sets = automata.sets if isinstance(automata, Tables) else None
    return sets if sets is not None and sets.fit(scores.shape[1]) else None


def _within(words: Tensor, window: Tensor) -> Tensor:
    """``[B, N]``: the places of the words of each row, in a ``window [B, N, ...]``."""
    return torch.arange(window.shape[1], device=words.device) < words[:, None]


def _possible(log_p: Tensor, within: Tensor) -> Tensor:
    """``[B, N, 1]``: places of the words of rows whose language is possible."""
    return (within & (log_p > -torch.inf)[:, None])[..., None]


def _window(log_probs: Tensor, words: Tensor, first: int, most: int | None = None) -> Tensor:
    return log_probs[:, first : first + (int(words.max()) if most is None else most)]


def _class_scores(window: Tensor, automata: Automata) -> Tensor:
    """Log-probabilities of the classes, ``[B, N, C]``, of those of the words, ``window [B, N, V]``."""
    return scatter_log_sum(window, _spread(automata.classes, window), automata.width)


def _class_tops(window: Tensor, automata: Automata) -> Tensor:
    return scatter_top(window, _spread(automata.classes, window), automata.width)


def _of_words(values: Tensor, automata: Automata) -> Tensor:
    """Values of classes ``[B, N, C]`` for each token, ``[B, N, V]``."""
    return values.gather(2, automata.classes[:, None].expand(-1, values.shape[1], -1))


def _spread(classes: Tensor, window: Tensor) -> Tensor:
    return classes[:, None].expand_as(window)


def _written(whole: Tensor, window: Tensor, first: int) -> Tensor:
    return torch.cat([whole[:, :first], window, whole[:, first + window.shape[1] :]], 1)
