"""Word distributions conditioned on automata: exact if words are independent given the model's marginals.

Forward-backward over the states of an automaton (Rabiner 1989; for guidance of diffusion models "Diffinity",
arXiv 2602.12468) and the arg max (Viterbi 1967; "DINGO", arXiv 2505.23061), for all rows and states at once. With few
states, all positions are one tree (``scan``), which takes a few calls for any number of them. Otherwise positions are a
loop that costs O(L S C) per row, for S states and C word classes; on a CPU less, since it follows only the transitions
that have a probability (``scaled``), and on a GPU with fewer calls (``chain``). The tree and the loop are in log space,
so nothing underflows in float32; ``scaled`` is in float64 and reports the rows where something might, which are then
computed in log space. In addition there is one pass over the ``[L, V]`` log-probabilities.

Arguments that all functions share:
    log_probs: ``[B, L, V]``, -inf for tokens that are not allowed at a position.
    words: ``[B]``, the number of words of each row.
    first: the position of the first word (1, after START). Positions without words are unchanged.
    most: the maximum of ``words``; computed if not given, which synchronises with a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlmctl.control.automata import chain
from dlmctl.control.automata.class_sums import class_scores, class_tops
from dlmctl.control.automata.scaled import forward_sums, is_worth_scaling, without_words
from dlmctl.control.automata.scan import Sets, best_states, forward_backward, log_total
from dlmctl.control.automata.sums import at_places, gathered, log_sum
from dlmctl.control.automata.transitions import Automata, Tables, in_pieces


class Inference(NamedTuple):
    """The result of forward-backward on a batch.

    Attributes:
        log_p: ``[B]``, log-probability that independently drawn words form a text of the language; -inf if impossible.
        log_ratio: ``[B, N, C]``, log p(class | language) - log p(class) for each of the (at most) N words; of no
            meaning for classes that are impossible there.
    """

    log_p: Tensor
    log_ratio: Tensor


def log_probability(
    log_probs: Tensor, automata: Automata, words: Tensor, first: int = 1, most: int | None = None
) -> Tensor:
    """Log-probability ``[B]`` that independent words form a text of the language; differentiable.

    Its negative is an energy. Its gradient with respect to a word's log-probability is the word's posterior
    probability, so it does not vanish where the language is nearly impossible. For the negation of a language use its
    ``complement``: its log-probability does not vanish where the language is nearly certain, as log(1 - p) would. -inf,
    without a gradient, where no text is possible.
    """
    scores = _scores(_window(log_probs, words, first, most), automata)
    sets, within = _sets_for_scan(automata, scores), _within(words, scores)
    if sets is not None:
        return log_total(sets.matrices(scores, within), automata.ends.to(scores.dtype))
    sums = forward_sums(scores, automata, within) if is_worth_scaling(scores, automata) else None
    if sums is not None and bool(sums.holds.all()):
        return sums.log_p.to(scores.dtype)
    log_p = _backward(automata.step_scores(scores), automata, within)[:, 0, 0]
    return log_p if sums is None else torch.where(sums.holds, sums.log_p.to(scores.dtype), log_p)


def log_probability_by_length(log_probs: Tensor, automata: Automata, longest: int) -> Tensor:
    """Log-probability ``[longest + 1]`` that n words drawn from ``log_probs [V]`` are in the language, by n."""
    step_scores = automata.step_scores(_scores(log_probs[None, None], automata))[:, 0]
    ends = automata.ends.to(log_probs.dtype)
    forward = torch.full_like(ends, -torch.inf)
    forward[:, 0] = 0.0
    by_length = []
    for _ in range(longest + 1):
        by_length.append(log_sum(forward + ends, 1)[0])
        forward = automata.step_forward(step_scores, forward)
    return torch.stack(by_length)


def infer(scores: Tensor, automata: Automata, within: Tensor) -> Inference:
    """Forward-backward for class log-probabilities ``scores [B, N, C]``; ``within [B, N]`` is true for words."""
    sets = _sets_for_scan(automata, scores)
    if sets is not None:
        forward, backward, log_p = forward_backward(
            sets.matrices(scores, within), automata.ends.to(scores.dtype), sets.identity.to(scores.dtype)
        )
        forward, backward = forward[:, : scores.shape[1]], backward[:, : scores.shape[1]]
        without_word = automata.without_word(forward, gathered(backward, automata.target))
        return Inference(log_p, automata.per_class(without_word - log_p[:, None, None]))
    if not is_worth_scaling(scores, automata):
        return _in_log_space(scores, automata, within)
    sums = forward_sums(scores, automata, within)
    log_ratio, holds = without_words(sums, automata)
    scaled = Inference(sums.log_p.to(scores.dtype), automata.per_class(log_ratio.to(scores.dtype)))
    if bool(holds.all()):
        return scaled
    exact = _in_log_space(scores, automata, within)
    log_p = torch.where(holds, scaled.log_p, exact.log_p)
    return Inference(log_p, torch.where(holds[:, None, None], scaled.log_ratio, exact.log_ratio))


def condition(
    log_probs: Tensor,
    automata: Automata,
    words: Tensor,
    first: int = 1,
    sharpness: float | Tensor = 1.0,
    most: int | None = None,
) -> Tensor:
    """Log-probabilities ``[B, L, V]`` of the words given that the text is in the language.

    Normalised if ``log_probs`` are. A row whose language is impossible is unchanged (see ``log_probability``).

    Args:
        sharpness: a number, or ``[B, 1, 1]``, one per row. Class sequences of the language are weighted by their
            probability to this power: 2 favours likelier positions. Words within a class keep their proportions.
    """
    window = _window(log_probs, words, first, most)
    scores, within = _scores(window, automata), _within(words, window)
    is_bayes = isinstance(sharpness, float) and sharpness == 1.0
    inference = infer(scores if is_bayes else scores * sharpness, automata, within)
    shift = inference.log_ratio
    if not is_bayes:
        shift = shift + (sharpness - 1.0) * scores.clamp(min=torch.finfo(scores.dtype).min)
    shift = torch.where(_possible(inference.log_p, within), shift, 0.0)
    return _replaced(log_probs, window + _per_token(shift, automata), first)


def likeliest(log_probs: Tensor, automata: Automata, words: Tensor, first: int = 1, most: int | None = None) -> Tensor:
    """``log_probs [B, L, V]`` with -inf for all but the word classes of the likeliest text of the language (Viterbi).

    Any choice among the remaining words is in the language; the arg max of each position gives the likeliest text.
    A row whose language is impossible is unchanged.
    """
    window = _window(log_probs, words, first, most)
    scores, within = class_tops(window, automata.classes, automata.width), _within(words, window)
    sets = _sets_for_scan(automata, scores)
    if isinstance(automata, Tables) and sets is not None:
        best, states = best_states(sets.matrices(scores, within, best=True), automata.ends.to(scores.dtype))
        path = automata.best_classes(states[:, : scores.shape[1] + 1], scores)
    elif chain.is_for(scores.device):
        best, states = chain.best_states(automata.step_scores(scores, best=True), automata, within)
        path = automata.best_classes(states, scores)
    else:
        step_scores = automata.step_scores(scores, best=True)
        backwards = _backward(step_scores, automata, within, best=True)
        best, path = backwards[:, 0, 0], _path(scores, step_scores, backwards, automata, within)
    return _replaced(log_probs, _on_path(window, path, automata, _possible(best, within)), first)


def _in_log_space(scores: Tensor, automata: Automata, within: Tensor) -> Inference:
    """Forward-backward word by word, in log space."""
    step_scores = automata.step_scores(scores)
    backwards = _backward(step_scores, automata, within)
    log_p = backwards[:, 0, 0]
    if chain.is_for(scores.device):
        return Inference(log_p, automata.per_class(chain.without_words(step_scores, automata, backwards)))
    pieces = in_pieces(_forward(step_scores, automata, within), automata, backwards)
    without_word = torch.cat(
        [automata.without_word(forward, gathered(after, automata.target)) for forward, _, after in pieces], 1
    )
    return Inference(log_p, automata.per_class(without_word - log_p[:, None, None]))


def _backward(step_scores: Tensor, automata: Automata, within: Tensor, best: bool = False) -> Tensor:
    """Log-probability of acceptance, or of the best path to it, from each state: ``[B, N + 1, S]``.

    Before each word, and after the last. ``step_scores [B, N, ...]`` are those of ``Tables``.
    """
    size = within.shape[1]
    # For one call less per word, all texts are moved to end at the last place.
    places = torch.arange(size + 1, device=within.device)
    shift = size - within.sum(1, keepdim=True)
    moved = at_places(step_scores, (places[:size] - shift).clamp(min=0))
    backward = [automata.ends.to(step_scores.dtype)]
    for scores in reversed(moved.unbind(1)):
        backward.append(automata.step_backward(scores, backward[-1], best))
    return at_places(torch.stack(backward[::-1], 1), (places + shift).clamp(max=size))


def _forward(step_scores: Tensor, automata: Automata, within: Tensor) -> Tensor:
    """Log-probability to be in each state before each word, ``[B, N, S]``."""
    forward = torch.full_like(automata.ends, -torch.inf, dtype=step_scores.dtype)
    forward[:, 0] = 0.0
    forwards = list[Tensor]()
    for scores, is_word in zip(step_scores.unbind(1), within.unbind(1), strict=True):
        forwards.append(forward)
        forward = torch.where(is_word[:, None], automata.step_forward(scores, forward), forward)
    return torch.stack(forwards, 1)


def _path(scores: Tensor, step_scores: Tensor, backwards: Tensor, automata: Automata, within: Tensor) -> Tensor:
    """The classes ``[B, N]`` of the best path, by class ``scores [B, N, C]`` and ``backwards [B, N + 1, S]``."""
    state, path = torch.zeros_like(automata.classes[:, 0]), list[Tensor]()
    for at, is_word in enumerate(within.unbind(1)):
        best_class, successor = automata.best_step(state, scores[:, at], step_scores[:, at], backwards[:, at + 1])
        path.append(best_class)
        state = torch.where(is_word, successor, state)
    return torch.stack(path, 1)


def _on_path(window: Tensor, path: Tensor, automata: Automata, possible: Tensor) -> Tensor:
    """``window [B, N, V]`` with -inf for classes off the ``path [B, N]``, where it is ``possible [B, N, 1]``."""
    is_off_path = automata.classes[:, None] != path[..., None]
    return window.masked_fill(is_off_path & possible, -torch.inf)


def _sets_for_scan(automata: Automata, scores: Tensor) -> Sets | None:
    """The sets for processing all words at once (``scan``); None if ``scores [B, N, C]`` are processed word by word."""
    sets = automata.sets if isinstance(automata, Tables) else None
    return sets if sets is not None and sets.fit(scores.shape[1]) else None


def _within(words: Tensor, window: Tensor) -> Tensor:
    """Whether each position of a ``window [B, N, ...]`` is one of its row's words: ``[B, N]``."""
    return torch.arange(window.shape[1], device=words.device) < words[:, None]


def _possible(log_p: Tensor, within: Tensor) -> Tensor:
    """Whether each position is a word of a row whose language is possible: ``[B, N, 1]``."""
    return (within & (log_p > -torch.inf)[:, None])[..., None]


def _window(log_probs: Tensor, words: Tensor, first: int, most: int | None = None) -> Tensor:
    return log_probs[:, first : first + (int(words.max()) if most is None else most)]


def _scores(window: Tensor, automata: Automata) -> Tensor:
    """Log-probabilities ``[B, N, C]`` of the classes, summed over the words of ``window [B, N, V]``."""
    return class_scores(window, automata.classes, automata.width)


def _per_token(values: Tensor, automata: Automata) -> Tensor:
    """Values ``[B, N, C]`` of classes, for each token: ``[B, N, V]``."""
    return values.gather(2, automata.classes[:, None].expand(-1, values.shape[1], -1))


def _replaced(whole: Tensor, window: Tensor, first: int) -> Tensor:
    """``whole [B, L, V]`` with the positions from ``first`` on replaced by ``window [B, N, V]``."""
    return torch.cat([whole[:, :first], window, whole[:, first + window.shape[1] :]], 1)
