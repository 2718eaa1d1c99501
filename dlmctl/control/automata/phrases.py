"""Phrases that must all occur, in any order: exact while they are few, in a likely order if they are many.

The automaton of k phrases in any order has at least 2^k states, and sampling from the exact posterior of many phrases
is #P-hard (it counts permutations). So the posterior is exact up to EXACT_STATES states. Beyond, a beam search over
positions that satisfy all requirements fixes the *order* of the phrases; within it their positions stay free. The
automaton then has one state per word, and all its texts contain every phrase. Only the order is approximate;
satisfaction is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlmctl.control.automata.dfa import DEAD, MAX_STATES, Automaton, Ints, TooLarge, reduced
from dlmctl.control.automata.languages import Alphabet, containing, in_order
from dlmctl.control.automata.product import intersection
from dlmctl.control.automata.sums import scatter_log_sum
from dlmctl.errors import LayoutError, UnsatisfiableError
from dlmctl.models.numerics import in_float64

# Most states for phrases in any order: enough for ten single words.
EXACT_STATES = 1024
# Beam widths of the search for an order; the second is tried if the first finds none.
BEAMS = (128, 1024)


class Language(NamedTuple):
    """The language of a text, with phrases that its automaton may not include yet.

    Attributes:
        automaton: the automaton of the language, without ``phrases``.
        phrases: token ids of phrases whose order is still to be fixed by ``in_likely_order``; empty if the automaton
            includes everything.
    """

    automaton: Automaton
    phrases: tuple[tuple[int, ...], ...] = ()

    @property
    def least_words(self) -> int:
        """The total number of words of ``phrases``."""
        return sum(map(len, self.phrases))


class _Beam(NamedTuple):
    """K partial arrangements of the P phrases up to a position.

    Attributes:
        state: ``[K]``, the state of the automaton.
        score: ``[K]``, log-probability.
        places: ``[K, P]``, the position where each phrase starts, -1 if it is still to come.
    """

    state: Ints
    score: npt.NDArray[np.float64]
    places: Ints


def with_phrases(base: Automaton, phrases: Sequence[Sequence[int]], alphabet: Alphabet) -> Language:
    """The texts of ``base`` that contain every phrase (token ids).

    A phrase that is part of another one needs no occurrence of its own.

    Raises:
        UnsatisfiableError: there is no such text.
    """
    needed = _needed(phrases)
    automaton = base
    try:
        for phrase in needed:
            most = EXACT_STATES if len(needed) > 1 else MAX_STATES
            automaton = reduced(intersection(automaton, containing(alphabet, phrase), most))
            if automaton.empty:
                words = " ".join(alphabet.words[token] or "" for token in phrase)
                raise UnsatisfiableError(f"no text that contains {words!r} satisfies all other requirements.")
    except TooLarge:
        return Language(base, needed)
    return Language(automaton)


def in_likely_order(language: Language, log_probs: Tensor, alphabet: Alphabet) -> Automaton:
    """The automaton of a language, with its phrases in a likely order under ``log_probs [N, V]`` of a text's N words.

    With uniform ``log_probs`` this checks before sampling whether an arrangement exists.

    Raises:
        LayoutError: no arrangement in N words was found. If other controls leave few positions for many phrases, the
            search may miss one that exists.
        TooLarge: the automaton would be too large.
    """
    if not language.phrases:
        return language.automaton
    searches = (likely_order(language.automaton, language.phrases, log_probs, beam) for beam in BEAMS)
    order = next((result for result in searches if result is not None), None)
    if order is None:
        raise LayoutError(
            f"no arrangement of {len(language.phrases)} phrases in {len(log_probs)} words was found that satisfies all "
            "requirements.",
            remedy="Ask for fewer phrases or a longer text.",
        )
    chain = in_order(alphabet, [language.phrases[phrase] for phrase in order])
    return reduced(intersection(language.automaton, chain))


def likely_order(
    base: Automaton, phrases: Sequence[Sequence[int]], log_probs: Tensor, beam: int = BEAMS[0]
) -> list[int] | None:
    """Indices of the phrases in the order of their likeliest positions in a text of ``base``; None if none was found.

    Args:
        log_probs: ``[N, V]``, of the N words of the text.
        beam: the beam width.
    """
    words = len(log_probs)
    wide = in_float64(log_probs)
    classes = torch.from_numpy(base.classes).expand(wide.shape).to(wide.device)
    class_scores = scatter_log_sum(wide, classes, base.table.shape[1]).cpu().numpy()
    phrase_scores = np.stack([_phrase_scores(log_probs, phrase) for phrase in phrases])
    # The best score of each phrase from each position on.
    best_ahead = np.maximum.accumulate(phrase_scores[:, ::-1], axis=1)[:, ::-1]
    states_after = [_states_after(base, phrase) for phrase in phrases]
    sizes = np.array([len(phrase) for phrase in phrases])
    room = _room(base, phrases, words)
    weights = np.random.default_rng(0).integers(1, 1 << 62, len(phrases) + 1)
    start = _Beam(np.zeros(1, dtype=np.int64), np.zeros(1), np.full((1, len(phrases)), -1))
    beams_at: list[list[_Beam]] = [[start], *([] for _ in range(words))]
    for at in range(words + 1):
        beams = beams_at[at]
        if not beams:
            continue
        current = _merged(beams)
        beams_at[at] = []
        is_open = current.places < 0
        fits = is_open @ sizes <= room[words - at][current.state]
        estimate = current.score + np.where(is_open, best_ahead[:, at], 0.0).sum(1)
        current = _best(current, np.where(fits, estimate, -np.inf), weights, beam)
        if at == words:
            is_complete = (current.places >= 0).all(1)
            return np.argsort(current.places[is_complete][0]).tolist() if is_complete.any() else None
        beams_at[at + 1].append(_with_word(current, base, class_scores[at]))
        for phrase, after in enumerate(states_after):
            if at + sizes[phrase] <= words:
                extended = _with_phrase(current, phrase, at, after, phrase_scores[phrase, at])
                beams_at[at + sizes[phrase]].append(extended)
    return None


def _with_word(beam: _Beam, base: Automaton, scores: npt.NDArray[np.float64]) -> _Beam:
    """Every arrangement extended by a word of each class that belongs to no phrase."""
    successors = base.table[beam.state]
    row, symbol = np.nonzero((successors != DEAD) & np.isfinite(scores))
    return _Beam(successors[row, symbol], beam.score[row] + scores[symbol], beam.places[row])


def _with_phrase(beam: _Beam, phrase: int, at: int, after: Ints, score: float) -> _Beam:
    """The arrangements that can be extended by a phrase at position ``at``, with it; ``after [S]`` as of
    ``_states_after``."""
    can_extend = (beam.places[:, phrase] < 0) & (after[beam.state] != DEAD) & np.isfinite(score)
    places = beam.places[can_extend]
    places[:, phrase] = at
    return _Beam(after[beam.state[can_extend]], beam.score[can_extend] + score, places)


def _best(beam: _Beam, estimate: npt.NDArray[np.float64], weights: Ints, count: int) -> _Beam:
    """The ``count`` best arrangements by ``estimate``, one for each state and set of phrases; -inf is excluded.

    Args:
        weights: ``[1 + P]``, random numbers to hash a state and a set of phrases.
    """
    order = np.argsort(-estimate, kind="stable")
    order = order[np.isfinite(estimate[order])]
    keys = (beam.places[order] >= 0) @ weights[1:] + beam.state[order] * weights[0]
    first = np.sort(np.unique(keys, return_index=True)[1])[:count]
    best = order[first]
    return _Beam(beam.state[best], beam.score[best], beam.places[best])


def _merged(beams: Sequence[_Beam]) -> _Beam:
    return _Beam(
        np.concatenate([beam.state for beam in beams]),
        np.concatenate([beam.score for beam in beams]),
        np.concatenate([beam.places for beam in beams]),
    )


def _phrase_scores(log_probs: Tensor, phrase: Sequence[int]) -> npt.NDArray[np.float64]:
    """Log-probability ``[N + 1]`` of a phrase at each start; -inf where it does not fit."""
    words = len(log_probs)
    scores = np.full(words + 1, -np.inf)
    starts = words - len(phrase) + 1
    if starts > 0:
        rows = [log_probs[at : at + starts, token] for at, token in enumerate(phrase)]
        scores[:starts] = torch.stack(rows).sum(0).cpu().double().numpy()
    return scores


def _states_after(base: Automaton, phrase: Sequence[int]) -> Ints:
    """The state ``[S]`` after a phrase, from each state."""
    state = np.arange(len(base.table))
    for token in phrase:
        state = np.where(state == DEAD, DEAD, base.table[state, base.classes[token]])
    return state


def _room(base: Automaton, phrases: Sequence[Sequence[int]], words: int) -> Ints:
    """The room for phrases, ``[N + 1, S]``: the most words that can belong to phrases, of n words from a state to
    acceptance; -1 where n words cannot lead to acceptance."""
    in_phrase = np.zeros(base.table.shape[1], dtype=np.int64)
    in_phrase[base.classes[[token for phrase in phrases for token in phrase]]] = 1
    room = np.full((words + 1, len(base.table)), -1, dtype=np.int64)
    room[0][base.accepting] = 0
    for count in range(words):
        after = np.append(room[count], -1)[base.table]
        room[count + 1] = np.where(after < 0, -1, after + in_phrase).max(1)
    return room


def _needed(phrases: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The distinct phrases that are not part of another one, longest first."""
    distinct = sorted({tuple(phrase) for phrase in phrases}, key=lambda phrase: (-len(phrase), phrase))
    return tuple(p for at, p in enumerate(distinct) if not any(_contains(other, p) for other in distinct[:at]))


def _contains(phrase: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(phrase[at : at + len(part)] == part for at in range(len(phrase) - len(part) + 1))
