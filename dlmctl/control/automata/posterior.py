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
    spans: where the words of each row are.
    first: the position of the first word (1, after START). Positions without words are unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlmctl.control.automata import by_word, chain
from dlmctl.control.automata.class_sums import class_scores, class_tops
from dlmctl.control.automata.scaled import forward_sums, is_worth_scaling, without_words
from dlmctl.control.automata.scan import Sets, best_states, forward_backward, log_total
from dlmctl.control.automata.spans import Spans
from dlmctl.control.automata.sums import gathered, log_sum
from dlmctl.control.automata.transitions import Automata, Tables

# What an unlikely word costs a text, in nats: there are such words only where no text is left without them.
UNLIKELY = 20.0


class Inference(NamedTuple):
    """The result of forward-backward on a batch.

    Attributes:
        log_p: ``[B]``, log-probability that independently drawn words form a text of the language; -inf if impossible.
        log_ratio: ``[B, N, C]``, log p(class | language) - log p(class) for each of the (at most) N words; of no
            meaning for classes that are impossible there.
    """

    log_p: Tensor
    log_ratio: Tensor


def log_probability(log_probs: Tensor, automata: Automata, spans: Spans, first: int = 1) -> Tensor:
    """Log-probability ``[B]`` that independent words form a text of the language; differentiable.

    Its negative is an energy. Its gradient with respect to a word's log-probability is the word's posterior
    probability, so it does not vanish where the language is nearly impossible. For the negation of a language use its
    ``complement``: its log-probability does not vanish where the language is nearly certain, as log(1 - p) would. -inf,
    without a gradient, where no text is possible.
    """
    scores = _scores(_window(log_probs, spans, first), automata)
    sets = _sets_for_scan(automata, scores)
    if sets is not None:
        return log_total(sets.matrices(scores, spans.within), automata.ends.to(scores.dtype))
    sums = forward_sums(scores, automata, spans.within) if is_worth_scaling(scores, automata) else None
    if sums is not None and bool(sums.holds.all()):
        return sums.log_p.to(scores.dtype)
    log_p = by_word.log_probability(scores, automata, spans)
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


def infer(scores: Tensor, automata: Automata, spans: Spans) -> Inference:
    """Forward-backward for class log-probabilities ``scores [B, N, C]``."""
    sets = _sets_for_scan(automata, scores)
    if sets is not None:
        forward, backward, log_p = forward_backward(
            sets.matrices(scores, spans.within), automata.ends.to(scores.dtype), sets.identity.to(scores.dtype)
        )
        forward, backward = forward[:, : scores.shape[1]], backward[:, : scores.shape[1]]
        without_word = automata.without_word(forward, gathered(backward, automata.target))
        return Inference(log_p, automata.per_class(without_word - log_p[:, None, None]))
    if not is_worth_scaling(scores, automata):
        return Inference(*by_word.log_ratios(scores, automata, spans))
    sums = forward_sums(scores, automata, spans.within)
    log_ratio, holds = without_words(sums, automata)
    scaled = Inference(sums.log_p.to(scores.dtype), automata.per_class(log_ratio.to(scores.dtype)))
    if bool(holds.all()):
        return scaled
    exact = Inference(*by_word.log_ratios(scores, automata, spans))
    log_p = torch.where(holds, scaled.log_p, exact.log_p)
    return Inference(log_p, torch.where(holds[:, None, None], scaled.log_ratio, exact.log_ratio))


def condition(
    log_probs: Tensor,
    automata: Automata,
    spans: Spans,
    first: int = 1,
    sharpness: float | Tensor = 1.0,
) -> Tensor:
    """Log-probabilities ``[B, L, V]`` of the words given that the text is in the language.

    Normalised if ``log_probs`` are. A row whose language is impossible is unchanged (see ``log_probability``).

    Args:
        sharpness: a number, or ``[B, 1, 1]``, one per row. Class sequences of the language are weighted by their
            probability to this power: 2 favours likelier positions. Words within a class keep their proportions.
    """
    window = _window(log_probs, spans, first)
    scores = _scores(window, automata)
    is_bayes = _is_bayes(sharpness)
    inference = infer(scores if is_bayes else scores * sharpness, automata, spans)
    shift = inference.log_ratio if is_bayes else inference.log_ratio + _added(scores, sharpness)
    shift = shift.masked_fill(_unchanged(inference.log_p, spans), 0.0)
    return _replaced(log_probs, window + _per_token(shift, automata), first)


def likeliest(log_probs: Tensor, automata: Automata, spans: Spans, first: int = 1) -> Tensor:
    """``log_probs [B, L, V]`` with -inf for all but the word classes of the likeliest text of the language (Viterbi).

    Any choice among the remaining words is in the language; the arg max of each position gives the likeliest text.
    A row whose language is impossible is unchanged.
    """
    window = _window(log_probs, spans, first)
    scores = class_tops(window, automata.classes, automata.width)
    sets = _sets_for_scan(automata, scores)
    if isinstance(automata, Tables) and sets is not None:
        best, states = best_states(sets.matrices(scores, spans.within, best=True), automata.ends.to(scores.dtype))
        path = automata.best_classes(states[:, : scores.shape[1] + 1], scores)
    else:
        best, path = by_word.best_path(scores, automata, spans)
    return _replaced(log_probs, _on_path(window, path, automata, _unchanged(best, spans)), first)


def draw(
    log_probs: Tensor,
    likely: Tensor,
    automata: Automata,
    spans: Spans,
    uniform: Tensor,
    first: int = 1,
    sharpness: float | Tensor = 1.0,
) -> Tensor:
    """``log_probs [B, L, V]`` with -inf for all but word classes along a text of the language, drawn with its
    probability (forward filtering, backward sampling: Carter and Kohn 1994; here in the other direction).

    Words chosen from what remains, each for itself, make a text drawn from the language. A row whose language is
    impossible keeps all ``likely`` words.

    Args:
        likely: ``log_probs`` with -inf for words that are only drawn where no text is left without them.
        uniform: numbers in [0, 1), ``[B, L]``.
        sharpness: as for ``condition``.
    """
    window, likely_window = _window(log_probs, spans, first), _window(likely, spans, first)
    scores, likely_scores = _scores(window, automata), _scores(likely_window, automata)
    has_likely = likely_scores > -torch.inf
    scores = torch.where(has_likely, likely_scores, scores - UNLIKELY)
    numbers = uniform[:, first : first + scores.shape[1]]
    log_p, states = _drawn_states(scores * sharpness, automata, spans, numbers)
    along = automata.classes_along(states)
    # Of the classes that lead from state to state those with likely words, if there are any.
    along &= has_likely | ~(along & has_likely).any(2, keepdim=True)
    unchanged = _unchanged(log_p, spans)
    needed, left = along & ~has_likely & ~unchanged, along | unchanged
    drawn_window = torch.where(_per_token(needed, automata), window, likely_window)
    if not _is_bayes(sharpness):
        drawn_window = drawn_window + _per_token(_added(scores, sharpness).masked_fill(unchanged, 0.0), automata)
    return _replaced(likely, drawn_window.masked_fill(~_per_token(left, automata), -torch.inf), first)


def _is_bayes(sharpness: float | Tensor) -> bool:
    return isinstance(sharpness, float) and sharpness == 1.0


def _added(scores: Tensor, sharpness: float | Tensor) -> Tensor:
    """What ``sharpness`` adds to the log-probabilities of all words of each class ``[B, N, C]``."""
    return (sharpness - 1.0) * scores.clamp(min=torch.finfo(scores.dtype).min)


def _drawn_states(scores: Tensor, automata: Automata, spans: Spans, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """As ``by_word.drawn_states``."""
    sets = _sets_for_scan(automata, scores)
    if sets is None or not chain.is_for(scores.device):
        return by_word.drawn_states(scores, automata, spans, uniform)
    identity = sets.identity.to(scores.dtype)
    matrices, ends = sets.matrices(scores, spans.within), automata.ends.to(scores.dtype)
    _, after, log_p = forward_backward(matrices, ends, identity)
    # Before the first word there is one state.
    backwards = torch.cat((log_p[:, None, None].expand_as(after[:, :1]), after[:, : scores.shape[1]]), 1)
    return log_p, chain.drawn_states(automata.step_scores(scores), automata, backwards, spans, uniform)


def _on_path(window: Tensor, path: Tensor, automata: Automata, unchanged: Tensor) -> Tensor:
    """``window [B, N, V]`` with -inf for classes off the ``path [B, N]``, except where ``unchanged [B, N, 1]``."""
    is_off_path = automata.classes[:, None] != path[..., None]
    # Off the path and not unchanged, in one call.
    return window.masked_fill(is_off_path > unchanged, -torch.inf)


def _sets_for_scan(automata: Automata, scores: Tensor) -> Sets | None:
    """The sets for processing all words at once (``scan``); None if ``scores [B, N, C]`` are processed word by word."""
    sets = automata.sets if isinstance(automata, Tables) else None
    return sets if sets is not None and sets.fit(scores.shape[1]) else None


def _unchanged(log_p: Tensor, spans: Spans) -> Tensor:
    """The positions that stay as they are ``[B, N, 1]``: behind the words, and of rows whose language is impossible."""
    # Behind, or not possible, in one call.
    return ((log_p > -torch.inf)[:, None] <= spans.behind)[..., None]


def _window(log_probs: Tensor, spans: Spans, first: int) -> Tensor:
    return log_probs[:, first : first + spans.within.shape[1]]


def _scores(window: Tensor, automata: Automata) -> Tensor:
    """Log-probabilities ``[B, N, C]`` of the classes, summed over the words of ``window [B, N, V]``."""
    return class_scores(window, automata.classes, automata.width)


def _per_token(values: Tensor, automata: Automata) -> Tensor:
    """Values ``[B, N, C]`` of classes, for each token: ``[B, N, V]``."""
    return values.gather(2, automata.classes[:, None].expand(-1, values.shape[1], -1))


def _replaced(whole: Tensor, window: Tensor, first: int) -> Tensor:
    """``whole [B, L, V]`` with the positions from ``first`` on replaced by ``window [B, N, V]``."""
    return torch.cat([whole[:, :first], window, whole[:, first + window.shape[1] :]], 1)
