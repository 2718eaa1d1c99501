"""Operations on languages: intersection, complement, and the possible lengths of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dlmctl.control.automata.dfa import (
    DEAD,
    MAX_CELLS,
    MAX_STATES,
    OUTSIDE,
    Automaton,
    Bools,
    Ints,
    reduced,
    require_size,
    trimmed,
)
from dlmctl.errors import LayoutError, UnsatisfiableError


def intersection(one: Automaton, other: Automaton, most: int = MAX_STATES, cells: int = MAX_CELLS) -> Automaton:
    """The texts of both languages; only reachable pairs of states are built.

    Raises:
        TooLarge: more than ``most`` states are reached, or the table would have more than ``cells`` cells.
    """
    classes, pairs = _common_classes(one, other)
    left, right = one.table[:, pairs[:, 0]], other.table[:, pairs[:, 1]]
    # A pair of states is a * width + b.
    width = len(other.table)
    new_state = np.full(len(one.table) * width, DEAD, dtype=np.int64)
    new_state[0], count = 0, 1
    frontier, rows, state_pairs = np.array([0]), [], [np.array([0])]
    while len(frontier):
        a, b = left[frontier // width], right[frontier % width]
        successors = np.where((a == DEAD) | (b == DEAD), DEAD, a * width + b)
        reached = np.unique(successors)
        reached = reached[reached != DEAD]
        unseen = reached[new_state[reached] == DEAD]
        new_state[unseen] = count + np.arange(len(unseen))
        count += len(unseen)
        require_size(count, len(pairs), most, cells)
        rows.append(np.where(successors == DEAD, DEAD, new_state[successors]))
        state_pairs.append(unseen)
        frontier = unseen
    states = np.concatenate(state_pairs)
    return trimmed(
        Automaton(classes, np.concatenate(rows), one.accepting[states // width] & other.accepting[states % width])
    )


def complement(automaton: Automaton) -> Automaton:
    """The texts of words that are not in the language."""
    sink = len(automaton.table)
    table = np.concatenate([automaton.table, np.full((1, automaton.table.shape[1]), DEAD)])
    table[table == DEAD] = sink
    table[:, OUTSIDE] = DEAD
    return reduced(Automaton(automaton.classes, table, ~np.append(automaton.accepting, False)))


def intersect_all(parts: Sequence[tuple[str, Automaton]], most: int = MAX_STATES, cells: int = MAX_CELLS) -> Automaton:
    """The texts that are in the languages of all parts.

    Args:
        parts: automata, each with its name for messages.
        most, cells: the most states of an automaton, and the most cells of its table.

    Raises:
        UnsatisfiableError: there is no such text; the message names two parts that exclude each other, or else all
            parts up to the first that leaves no text.
        TooLarge: the automaton would have too many states or cells.
    """
    joint = parts[0][1]
    for index, (name, part) in enumerate(parts[1:], start=1):
        joint = reduced(intersection(joint, part, most, cells))
        if joint.empty:
            conflicting = [
                other for other, automaton in parts[:index] if intersection(automaton, part, most, cells).empty
            ]
            names = conflicting[:1] or [other for other, _ in parts[:index]]
            raise UnsatisfiableError(
                f"no text satisfies {', '.join(dict.fromkeys(names))} and {name} together.",
                remedy="Leave one out, or loosen it.",
            )
    return joint


@lru_cache(maxsize=16)
def lengths(automaton: Automaton, longest: int) -> Bools:
    """Whether the language has a text of n words, for n from 0 to ``longest``."""
    is_possible = np.zeros(longest + 1, dtype=bool)
    states = np.array([0])
    for count in range(longest + 1):
        is_possible[count] = automaton.accepting[states].any()
        # DEAD is the last.
        is_reached = np.zeros(len(automaton.table) + 1, dtype=bool)
        is_reached[automaton.table[states]] = True
        states = np.flatnonzero(is_reached[:-1])
    return is_possible


def require_length(automaton: Automaton, words: int, longest: int, name: str, unit: str = "word") -> None:
    """Check that the language has a text of ``words`` words, or of whatever the ``unit`` of the language is.

    Raises:
        LayoutError: it has none; the message lists the possible lengths up to ``longest``.
    """
    is_possible = lengths(automaton, max(words, longest))
    if is_possible[words]:
        return
    possible = np.flatnonzero(is_possible[: longest + 1]).tolist()
    rest = f"possible are {_ranges(possible)} {unit}s" if possible else f"nor does any text of up to {longest} {unit}s"
    # A text over tokens may end before the last one.
    remedy = "Set sampler.new_tokens to one of these numbers." if possible and unit == "token" else None
    raise LayoutError(f"no text of {words} {unit}s satisfies it; {rest}.", where=name, remedy=remedy)


def _ranges(numbers: Sequence[int]) -> str:
    """Format increasing numbers as ranges, e.g. ``3, 5 to 9``; at most eight of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{low}" if low == high else f"{low} to {high}" for low, high in runs]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:8], "..."])


def _common_classes(one: Automaton, other: Automaton) -> tuple[Ints, Ints]:
    """Common refinement of the classes of both ``[V]``, and the pair of original classes for each: ``[C, 2]``."""
    if len(one.classes) != len(other.classes):
        raise ValueError(f"automata over vocabularies of {len(one.classes)} and {len(other.classes)} tokens")
    width = other.table.shape[1]
    outside = (one.classes == OUTSIDE) | (other.classes == OUTSIDE)
    keys = np.where(outside, OUTSIDE, one.classes * width + other.classes)
    # Class OUTSIDE exists even if all tokens are words.
    distinct, inverse = np.unique(np.append(keys, OUTSIDE), return_inverse=True)
    return inverse[:-1].astype(np.int64), np.stack([distinct // width, distinct % width], axis=1)
