"""Languages joined and turned round: intersection, complement, and which numbers of words a language has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlmctl.control.automata.dfa import (
    DEAD,
    MAX_STATES,
    OUTSIDE,
    Automaton,
    Bools,
    Ints,
    reduced,
    require_size,
    trimmed,
)
from dlmctl.errors import Unfit, Unmet


def intersection(one: Automaton, other: Automaton, most: int = MAX_STATES) -> Automaton:
    """The texts of both; only pairs of states that are reached are ever made.

    Raises:
        TooLarge: more than ``most`` states are reached, or the table would have more than MAX_CELLS cells.
    """
    classes, pairs = _common_classes(one, other)
    left, right = one.table[:, pairs[:, 0]], other.table[:, pairs[:, 1]]
    width = len(other.table)
    number = np.full(len(one.table) * width, DEAD, dtype=np.int64)
    number[0], count = 0, 1
    frontier, rows, keys = np.array([0]), [], [np.array([0])]
    while len(frontier):
        a, b = left[frontier // width], right[frontier % width]
        to = np.where((a == DEAD) | (b == DEAD), DEAD, a * width + b)
        found = np.unique(to)
        found = found[found != DEAD]
        fresh = found[number[found] == DEAD]
        number[fresh] = count + np.arange(len(fresh))
        count += len(fresh)
        require_size(count, len(pairs), most)
        rows.append(np.where(to == DEAD, DEAD, number[to]))
        keys.append(fresh)
        frontier = fresh
    made = np.concatenate(keys)
    return trimmed(
        Automaton(classes, np.concatenate(rows), one.accepting[made // width] & other.accepting[made % width])
    )


def complement(automaton: Automaton) -> Automaton:
    """The texts of words that are not in the language."""
    sink = len(automaton.table)
    table = np.concatenate([automaton.table, np.full((1, automaton.table.shape[1]), DEAD)])
    table[table == DEAD] = sink
    table[:, OUTSIDE] = DEAD
    return reduced(Automaton(automaton.classes, table, ~np.append(automaton.accepting, False)))


def joined(parts: Sequence[tuple[str, Automaton]]) -> Automaton:
    """The texts that are in the language of every part; parts are given with their names, for the messages.

    Raises:
        Unmet: there is no such text; the message names two parts that exclude each other, or those up to the
            first at which nothing is left.
        TooLarge: too many states.
    """
    whole = parts[0][1]
    for done, (name, part) in enumerate(parts[1:], start=1):
        whole = reduced(intersection(whole, part))
        if whole.empty:
            others = [other for other, automaton in parts[:done] if intersection(automaton, part).empty]
            names = others[:1] or [other for other, _ in parts[:done]]
            raise Unmet(
                f"no text satisfies {', '.join(dict.fromkeys(names))} and {name} together.",
                remedy="Leave one out, or loosen it.",
            )
    return whole


def lengths(automaton: Automaton, longest: int) -> Bools:
    """Whether the language has a text of so many words, for 0 to ``longest`` words."""
    found = np.zeros(longest + 1, dtype=bool)
    states = np.array([0])
    for count in range(longest + 1):
        found[count] = automaton.accepting[states].any()
        states = np.unique(automaton.table[states])
        states = states[states != DEAD]
    return found


def require_length(automaton: Automaton, words: int, longest: int, name: str, unit: str = "word") -> None:
    """Refuses a number of words, or whatever else the ``unit`` of the language is, that the language does not have.

    Raises:
        Unfit: no text of ``words`` words is in it; the message lists those of up to ``longest`` that are.
    """
    found = lengths(automaton, max(words, longest))
    if found[words]:
        return
    possible = np.flatnonzero(found[: longest + 1]).tolist()
    have = f"possible are {_ranges(possible)} {unit}s" if possible else f"nor one of any length up to {longest}"
    raise Unfit(f"no text of {words} {unit}s satisfies it; {have}.", where=name)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in rising order as ranges, e.g. ``3, 5 to 9``; at most eight of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{low}" if low == high else f"{low} to {high}" for low, high in runs]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:8], "..."])


def _common_classes(one: Automaton, other: Automaton) -> tuple[Ints, Ints]:
    """Classes ``[V]`` that tell apart what either does, and for each of them its class in both, ``[C, 2]``."""
    if len(one.classes) != len(other.classes):
        raise ValueError(f"automata over vocabularies of {len(one.classes)} and {len(other.classes)} tokens")
    width = other.table.shape[1]
    outside = (one.classes == OUTSIDE) | (other.classes == OUTSIDE)
    keys = np.where(outside, OUTSIDE, one.classes * width + other.classes)
    # Class 0 is there even in a vocabulary of words only.
    found, inverse = np.unique(np.append(keys, OUTSIDE), return_inverse=True)
    return inverse[:-1].astype(np.int64), np.stack([found // width, found % width], axis=1)
