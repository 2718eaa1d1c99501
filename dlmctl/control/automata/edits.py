"""The automata of edits: the texts that differ from a given text in at most a few words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dlmctl.control.automata.dfa import (
    DEAD,
    MAX_STATES,
    OUTSIDE,
    Automaton,
    Ints,
    TooLarge,
    is_too_large,
    partition,
    trimmed,
)
from dlmctl.control.automata.languages import UNKNOWN, Alphabet

# Numbers of changes, which are small.
Costs = npt.NDArray[np.int32]


@lru_cache(maxsize=64)
def exchanged(
    alphabet: Alphabet, words: tuple[str, ...], changes: int, held: frozenset[int] = frozenset()
) -> Automaton:
    """The texts of as many words of which at most ``changes`` differ from ``words``; empty if more are unknown.

    A state is a place and the number of changes before it.

    Args:
        held: the places of words that do not change.
    """
    ids, classes = _classes(alphabet, words)
    width = changes + 1
    table = np.full(((len(words) + 1) * width, int(classes.max()) + 1), DEAD, dtype=np.int64)
    for place, word_id in enumerate(ids):
        for done in range(width):
            state, following = place * width + done, (place + 1) * width + done
            table[state] = following + 1 if done < changes and place not in held else DEAD
            if word_id != UNKNOWN:
                table[state, classes[word_id]] = following
    table[:, OUTSIDE] = DEAD
    accepting = np.arange(len(table)) >= len(words) * width
    return trimmed(Automaton(classes, table, accepting))


@lru_cache(maxsize=64)
def edited(
    alphabet: Alphabet, words: tuple[str, ...], changes: int, tolerance: int, held: frozenset[int] = frozenset()
) -> Automaton:
    """The texts of up to ``tolerance`` words more or fewer at an edit distance of at most ``changes`` from ``words``:
    so many words exchanged, inserted or removed (Levenshtein 1966).

    A state is the number of words read and, for each place of ``words``, the fewest changes that lead there, a row of
    the table of Wagner & Fischer (1974). Rows are without places from which the end is too far.

    Args:
        held: the places of words that are neither exchanged nor removed.

    Raises:
        TooLarge: there are too many such states.
    """
    ids, classes = _classes(alphabet, words)
    removal = np.array([changes + 1 if place in held else 1 for place in range(len(words))], dtype=np.int32)
    differs = np.tile(removal, (int(classes.max()) + 1, 1))
    for place, word_id in enumerate(ids):
        if word_id != UNKNOWN:
            differs[classes[word_id], place] = 0
    least, most = max(0, len(words) - tolerance), len(words) + tolerance
    removals = np.append(np.int32(0), removal.cumsum(dtype=np.int32))
    rows, first = np.minimum(removals, np.int32(changes + 1))[None], 0
    tables, accepting = [], []
    for read in range(most + 1):
        accepting.append((rows[:, -1] <= changes) & (read >= least))
        following = _capped(_after_word(rows, differs, removals), changes, least - read - 1, most - read - 1)
        distinct, number = np.unique(following.reshape(-1, len(words) + 1), axis=0, return_inverse=True)
        alive = (distinct <= changes).any(1)
        first += len(rows)
        states = np.where(alive, first + np.cumsum(alive) - 1, DEAD)
        tables.append(states[number.reshape(following.shape[:2])])
        rows = distinct[alive]
        if is_too_large(first + len(rows), len(differs)):
            raise TooLarge(
                f"what up to {changes} changes make of a text of {len(words)} words is too much for an automaton of "
                f"{MAX_STATES} states, which models of tokens need, and others under `not` and where other controls "
                "leave no draft.",
                where="edit",
                remedy="Allow fewer changes, or less tolerance.",
            )
    table = np.concatenate(tables)
    table[:, OUTSIDE] = DEAD
    return trimmed(Automaton(classes, table, np.concatenate(accepting)))


def _classes(alphabet: Alphabet, words: Sequence[str]) -> tuple[list[int], Ints]:
    """The id of each word, UNKNOWN without one, and the class ``[V]`` of each token: each word's own, or that of all
    others."""
    ids = [(alphabet.numbers([word]) or [UNKNOWN])[0] for word in words]
    classes, _ = partition(alphabet.is_word, {}, [word_id for word_id in ids if word_id != UNKNOWN])
    return ids, classes


def _after_word(rows: Costs, differs: Costs, removals: Costs) -> Costs:
    """The rows ``[S, C, N + 1]`` after one more word of each class, from ``rows [S, N + 1]``.

    Args:
        differs: ``[C, N]``, what it costs to have a word of the class in place of the word of the text.
        removals: ``[N + 1]``, what it costs to remove all words before each place.
    """
    kept_or_exchanged = rows[:, None, :-1] + differs
    inserted = np.broadcast_to(rows[:, None] + 1, (len(rows), len(differs), rows.shape[1]))
    after = np.concatenate([inserted[..., :1], np.minimum(kept_or_exchanged, inserted[..., 1:])], axis=2)
    return np.minimum.accumulate(after - removals, axis=2) + removals  # words of the text removed after it


def _capped(rows: Costs, changes: int, least: int, most: int) -> Costs:
    """``rows [..., N + 1]`` with ``changes + 1`` at places that are too far: the text has ``least`` to ``most`` words
    to come, and each word more or fewer than the places left is a change as well."""
    left = np.arange(rows.shape[-1])[::-1]
    further = np.maximum(np.maximum(least - left, left - most), 0)
    return np.where((rows + further > changes) | (most < 0), changes + 1, rows)
