"""Forward steps word by word in few calls, given the backward sums: for a GPU, where each call is a kernel launch.

The states of an accepted text are a Markov chain: of the transitions from a state, each has the share of its word times
the backward probability of the state that it leads to. The shares are computed for all words at once. Then a forward
step is a product and a sum of probabilities, without logarithms: nothing underflows but posterior probabilities of
states, below 1e-38.

The best path is found likewise. A forward step is a maximum; the state before each state is looked up for all words at
once; and these maps are composed in log2(N) steps (Hillis and Steele 1986).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.control.automata.spans import Spans
from dlmctl.control.automata.sums import at_places, gathered
from dlmctl.control.automata.transitions import Automata, in_pieces, joined

# Whether a CPU takes these steps, too. It would draw the same texts, except for rounding.
ON_CPU = False


def is_for(device: torch.device) -> bool:
    """Whether a device takes these steps."""
    return ON_CPU or device.type != "cpu"


def without_words(scores: Tensor, automata: Automata, backwards: Tensor) -> Tensor:
    """Log-probability of the text except for each word, ``[B, N, ...]``, less that of the language.

    Args:
        scores: ``[B, N, ...]``, the ``step_scores`` of the words.
        backwards: ``[B, N + 1, S]``, of acceptance, from each state before each word, and after the last.
    """
    nothing = torch.zeros_like(backwards[:, 0])
    states, found = _at_start(nothing, 1.0), list[Tensor]()
    for word_scores, before, after in in_pieces(scores, automata, backwards):
        accepted, reached = _possible(before), gathered(after, automata.target)
        passed = list[Tensor]()
        for share in _shares(automata, word_scores, accepted, reached).unbind(1):
            passed.append(states)
            states = automata.moved(states, share, nothing)
        found.append(automata.without_word(torch.stack(passed, 1).log() - accepted, reached))
    return joined(found)


def best_states(scores: Tensor, automata: Automata, spans: Spans | None) -> tuple[Tensor, Tensor]:
    """The log-probability ``[B]`` of the best accepting path, and its states ``[B, N + 1]`` between the words.

    Args:
        scores: ``[B, N, ...]``, the ``step_scores`` of the words, for the best class.
        spans: of the words, None if all places are words. After the last word the state stays.
    """
    nothing = torch.full_like(automata.ends, -torch.inf, dtype=scores.dtype)
    forward = [_at_start(nothing, 0.0)]
    for word_scores in scores.unbind(1):
        terms = automata.leaving(forward[-1], word_scores)
        forward.append(nothing.scatter_reduce(1, automata.target, terms, "amax"))
    forwards = torch.stack(forward, 1)
    maps, final = _states_before(scores, automata, forwards), forward[-1]
    if spans is not None:
        final = at_places(forwards, spans.counts)[:, 0]
        maps = torch.where(spans.within[..., None], maps, torch.arange(forwards.shape[2], device=scores.device))
    best, last = (final + automata.ends).max(1)
    return best, torch.cat((_composed(maps, last), last[:, None]), 1)


def drawn_states(scores: Tensor, automata: Automata, backwards: Tensor, spans: Spans, uniform: Tensor) -> Tensor:
    """The states ``[B, N + 1]`` between the words of a drawn text: ``uniform [B, N]`` numbers lead on from each state.

    Arguments otherwise as for ``without_words``. After the last word the state stays.
    """
    found, done = list[Tensor](), 0
    for word_scores, before, after in in_pieces(scores, automata, backwards):
        shares = _shares(automata, word_scores, _possible(before), gathered(after, automata.target))
        found.append(automata.drawn_steps(shares, uniform[:, done : done + shares.shape[1]]))
        done += shares.shape[1]
    stay = torch.arange(backwards.shape[2], device=scores.device)
    maps, reach = torch.where(spans.within[..., None], joined(found), stay), 1
    while reach < maps.shape[1]:
        # So far each map leads over as many words as ``reach``, or from the start.
        further = maps[:, reach:].gather(2, maps[:, :-reach])
        maps, reach = torch.cat((maps[:, :reach], further), 1), 2 * reach
    return F.pad(maps[..., 0], (1, 0))


def _shares(automata: Automata, scores: Tensor, accepted: Tensor, reached: Tensor) -> Tensor:
    """The probability of each transition given the state before it, ``[B, N, T]``, in accepted texts.

    Args:
        accepted: ``[B, N, S]``, of acceptance from each state before each word.
        reached: ``[B, N, T]``, from the state after each transition.
    """
    return (automata.leaving(-accepted, scores) + reached).exp()


def _possible(accepted: Tensor) -> Tensor:
    """Log-probabilities without -inf, whose difference to -inf would be NaN."""
    return accepted.clamp(min=torch.finfo(accepted.dtype).min)


def _states_before(scores: Tensor, automata: Automata, forwards: Tensor) -> Tensor:
    """The state before each word on the best path to each state after it, ``[B, N, S]``."""
    found = list[Tensor]()
    for word_scores, before, after in in_pieces(scores, automata, forwards):
        is_best = automata.leaving(before, word_scores) == gathered(after, automata.target)
        states = torch.zeros_like(after, dtype=torch.long)
        target = automata.target[:, None].expand_as(is_best)
        found.append(states.scatter_reduce(2, target, automata.source[:, None] * is_best, "amax"))
    return joined(found)


def _composed(maps: Tensor, last: Tensor) -> Tensor:
    """The states ``[B, N]`` from which ``maps [B, N, S]``, each and those after it, lead to the states ``last [B]``."""
    reach = 1
    while reach < maps.shape[1]:
        # So far each map leads back over as many words as ``reach``, or from the end.
        further = maps[:, :-reach].gather(2, maps[:, reach:])
        maps, reach = torch.cat((further, maps[:, -reach:]), 1), 2 * reach
    return maps.gather(2, last[:, None, None].expand(-1, maps.shape[1], 1))[..., 0]


def _at_start(nothing: Tensor, value: float) -> Tensor:
    """``nothing [B, S]`` with a value at state 0."""
    return F.pad(nothing[:, 1:], (1, 0), value=value)
