"""Phrases that must all occur, in any order, beside what else is asked for: exact while few, in a likely order if many.

The automaton of k phrases in any order has 2^k states at least, and to draw from the exact posterior of many is
#P-hard (it counts permutations). So the posterior is exact up to EXACT_STATES states. Beyond, the *order* of the
phrases is settled by a beam search over places that fit all that is asked for, and their places stay free within it:
an automaton with one state a word, whose texts all hold every phrase. Only the order is a choice; satisfaction is
exact.
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
from dlmctl.errors import Unfit, Unmet

# States up to which phrases may come in any order: ten single words.
EXACT_STATES = 1024
# Arrangements that the search for an order keeps at each position: first few, then more if none of them ends well.
BEAMS = (128, 1024)


class Language(NamedTuple):
    """What a text is held to.

    Attributes:
        automaton: its language; without the phrases where there are any.
        phrases: token ids of phrases whose order is to be settled by ``in_likely_order``; none where the automaton
            holds everything.
    """

    automaton: Automaton
    phrases: tuple[tuple[int, ...], ...] = ()

    @property
    def least_words(self) -> int:
        """Words that the phrases to be ordered take up."""
        return sum(map(len, self.phrases))


class _Beam(NamedTuple):
    """Arrangements of the phrases up to a position: ``state [K]`` of the automaton, ``score [K]`` (log-probability),
    and where each phrase starts, ``places [K, P]``, -1 where it is still to come."""

    state: Ints
    score: npt.NDArray[np.float64]
    places: Ints


def with_phrases(base: Automaton, phrases: Sequence[Sequence[int]], alphabet: Alphabet) -> Language:
    """The texts of ``base`` that have every phrase (token ids); a phrase that another one holds is met by that one.

    Raises:
        Unmet: there is no such text.
    """
    needed = _needed(phrases)
    whole = base
    try:
        for phrase in needed:
            most = EXACT_STATES if len(needed) > 1 else MAX_STATES
            whole = reduced(intersection(whole, containing(alphabet, phrase), most))
            if whole.empty:
                words = " ".join(alphabet.words[token] or "" for token in phrase)
                raise Unmet(f"no text with {words!r} and what else must be in it satisfies all that is asked for.")
    except TooLarge:
        return Language(base, needed)
    return Language(whole)


def in_likely_order(language: Language, log_probs: Tensor, alphabet: Alphabet) -> Automaton:
    """The automaton of a language, the order of its phrases settled by ``log_probs [N, V]`` of a text's N words.

    With all words equally likely this tells before sampling whether an arrangement is to be had.

    Raises:
        Unfit: no arrangement in N words was found. Where other controls leave few places for many phrases, one
            may exist that the search misses.
        TooLarge: the automaton would be too large.
    """
    if not language.phrases:
        return language.automaton
    searches = (likely_order(language.automaton, language.phrases, log_probs, beam) for beam in BEAMS)
    order = next((found for found in searches if found is not None), None)
    if order is None:
        raise Unfit(
            f"no arrangement of {len(language.phrases)} phrases in {len(log_probs)} words was found that satisfies all "
            "that is asked for.",
            remedy="Ask for fewer phrases or a longer text.",
        )
    chain = in_order(alphabet, [language.phrases[phrase] for phrase in order])
    return reduced(intersection(language.automaton, chain))


def likely_order(
    base: Automaton, phrases: Sequence[Sequence[int]], log_probs: Tensor, beam: int = BEAMS[0]
) -> list[int] | None:
    """Numbers of the phrases in the order of their likeliest places in a text of ``base``; None if none was found."""
    words = len(log_probs)
    classes = torch.from_numpy(base.classes).expand(log_probs.shape).to(log_probs.device)
    free = scatter_log_sum(log_probs.double(), classes, base.table.shape[1]).cpu().numpy()
    alone = np.stack([_starts(log_probs, phrase) for phrase in phrases])
    # The best that a phrase can hope for from each position on.
    hope = np.maximum.accumulate(alone[:, ::-1], axis=1)[:, ::-1]
    jumps = [_jump(base, phrase) for phrase in phrases]
    sizes = np.array([len(phrase) for phrase in phrases])
    room = _room(base, phrases, words)
    weights = np.random.default_rng(0).integers(1, 1 << 62, len(phrases) + 1)
    start = _Beam(np.zeros(1, dtype=np.int64), np.zeros(1), np.full((1, len(phrases)), -1))
    waiting: list[list[_Beam]] = [[start], *([] for _ in range(words))]
    for at in range(words + 1):
        beams = waiting[at]
        if not beams:
            continue
        here = _merged(beams)
        waiting[at] = []
        open_ = here.places < 0
        fits = open_ @ sizes <= room[words - at][here.state]
        promise = here.score + np.where(open_, hope[:, at], 0.0).sum(1)
        here = _best(here, np.where(fits, promise, -np.inf), weights, beam)
        if at == words:
            done = (here.places >= 0).all(1)
            return np.argsort(here.places[done][0]).tolist() if done.any() else None
        waiting[at + 1].append(_one_word(here, base, free[at]))
        for phrase, jump in enumerate(jumps):
            if at + sizes[phrase] <= words:
                waiting[at + sizes[phrase]].append(_one_phrase(here, phrase, at, jump, alone[phrase, at]))
    return None


def _one_word(beam: _Beam, base: Automaton, scores: npt.NDArray[np.float64]) -> _Beam:
    """Every arrangement with one word more that belongs to no phrase, of every class."""
    to = base.table[beam.state]
    row, symbol = np.nonzero((to != DEAD) & np.isfinite(scores))
    return _Beam(to[row, symbol], beam.score[row] + scores[symbol], beam.places[row])


def _one_phrase(beam: _Beam, phrase: int, at: int, jump: Ints, score: float) -> _Beam:
    """The arrangements that can take a phrase next, with it."""
    able = (beam.places[:, phrase] < 0) & (jump[beam.state] != DEAD) & np.isfinite(score)
    places = beam.places[able]
    places[:, phrase] = at
    return _Beam(jump[beam.state[able]], beam.score[able] + score, places)


def _best(beam: _Beam, promise: npt.NDArray[np.float64], weights: Ints, count: int) -> _Beam:
    """The most promising arrangements, one for each state and set of phrases; those of promise -inf are left out."""
    order = np.argsort(-promise, kind="stable")
    order = order[np.isfinite(promise[order])]
    keys = (beam.places[order] >= 0) @ weights[1:] + beam.state[order] * weights[0]
    first = np.sort(np.unique(keys, return_index=True)[1])[:count]
    kept = order[first]
    return _Beam(beam.state[kept], beam.score[kept], beam.places[kept])


def _merged(beams: Sequence[_Beam]) -> _Beam:
    return _Beam(
        np.concatenate([beam.state for beam in beams]),
        np.concatenate([beam.score for beam in beams]),
        np.concatenate([beam.places for beam in beams]),
    )


def _starts(log_probs: Tensor, phrase: Sequence[int]) -> npt.NDArray[np.float64]:
    """``[N + 1]``: log-probability of a phrase from each start; -inf where it has no room."""
    words = len(log_probs)
    found = np.full(words + 1, -np.inf)
    starts = words - len(phrase) + 1
    if starts > 0:
        rows = [log_probs[at : at + starts, token] for at, token in enumerate(phrase)]
        found[:starts] = torch.stack(rows).sum(0).double().cpu().numpy()
    return found


def _jump(base: Automaton, phrase: Sequence[int]) -> Ints:
    """``[S]``: the state after a phrase, from each state."""
    state = np.arange(len(base.table))
    for token in phrase:
        state = np.where(state == DEAD, DEAD, base.table[state, base.classes[token]])
    return state


def _room(base: Automaton, phrases: Sequence[Sequence[int]], words: int) -> Ints:
    """``[N + 1, S]``: of exactly so many words from a state to acceptance, how many at most may belong to phrases; -1
    where it cannot be accepted then."""
    ours = np.zeros(base.table.shape[1], dtype=np.int64)
    ours[base.classes[[token for phrase in phrases for token in phrase]]] = 1
    found = np.full((words + 1, len(base.table)), -1, dtype=np.int64)
    found[0][base.accepting] = 0
    for count in range(words):
        after = np.append(found[count], -1)[base.table]
        found[count + 1] = np.where(after < 0, -1, after + ours).max(1)
    return found


def _needed(phrases: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    distinct = sorted({tuple(phrase) for phrase in phrases}, key=lambda phrase: (-len(phrase), phrase))
    return tuple(p for at, p in enumerate(distinct) if not any(_holds(other, p) for other in distinct[:at]))


def _holds(phrase: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(phrase[at : at + len(part)] == part for at in range(len(phrase) - len(part) + 1))
