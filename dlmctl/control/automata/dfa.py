"""Deterministic finite automata over the words of a vocabulary, and their minimisation.

Words that no transition distinguishes share a class, so that the cost does not grow with the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dlmctl.errors import RecipeError

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

# In a table: there is no transition.
DEAD = -1
# The class of tokens that are not words (START, END, PAD, UNK): they have no transitions.
OUTSIDE = 0
# Limits on an automaton, and on its table, of which a step of inference holds a copy per row.
MAX_STATES = 4096
MAX_CELLS = 1 << 18


class TooLarge(RecipeError):
    """An automaton would have more states than are allowed."""


def is_too_large(states: int, classes: int, most: int = MAX_STATES, cells: int = MAX_CELLS) -> bool:
    """Whether an automaton has more than ``most`` states or ``cells`` cells."""
    return states > most or states * classes > cells


def require_size(states: int, classes: int, most: int = MAX_STATES, cells: int = MAX_CELLS) -> None:
    """Limit the size of an automaton while it is built.

    Raises:
        TooLarge: it has more than ``most`` states or ``cells`` cells.
    """
    if is_too_large(states, classes, most, cells):
        raise TooLarge(
            f"the controls together need an automaton of more than {min(most, cells // classes)} states.",
            remedy="Ask for fewer phrases, shorter repeats, smaller numbers or a simpler pattern.",
        )


@dataclass(frozen=True, eq=False)
class Automaton:
    """A language of texts: those whose words lead from state 0 to an accepting state; equal only to itself.

    Attributes:
        classes: ``[V]``, the class of each token id; OUTSIDE for tokens that are not words.
        table: ``[S, C]``, the next state for each state and class, or DEAD; always DEAD for class OUTSIDE.
        accepting: ``[S]``. If the language is empty, no state accepts; else an accepting state can be reached from
            every state.
    """

    classes: Ints
    table: Ints
    accepting: Bools

    @property
    def empty(self) -> bool:
        """Whether no text is in the language."""
        return not self.accepting.any()

    def accepts(self, token_ids: Sequence[int]) -> bool:
        """Whether a text is in the language."""
        state = 0
        for token in token_ids:
            state = int(self.table[state, self.classes[token]])
            if state == DEAD:
                return False
        return bool(self.accepting[state])


def partition(is_word: Bools, sets: Mapping[str, Bools], singles: Sequence[int]) -> tuple[Ints, dict[str | int, Ints]]:
    """Partition the words into classes ``[V]`` that no set distinguishes; each of the ``singles`` (token ids) is alone.

    Also returns the classes that make up each set and each single. ``sets`` maps names to booleans ``[V]``, at most 60
    of them.
    """
    keys = np.zeros(len(is_word), dtype=np.int64)
    for bit, members in enumerate(sets.values()):
        keys += members.astype(np.int64) << bit
    distinct = np.unique(np.asarray(singles, dtype=np.int64))
    keys[distinct] = (1 << len(sets)) + np.arange(len(distinct))
    classes = np.full(len(is_word), OUTSIDE, dtype=np.int64)
    classes[is_word] = np.unique(keys[is_word], return_inverse=True)[1] + 1
    classes_of: dict[str | int, Ints] = {name: np.unique(classes[members & is_word]) for name, members in sets.items()}
    classes_of.update({int(token): classes[token : token + 1] for token in distinct})
    return classes, classes_of


def shortest(automaton: Automaton) -> Ints:
    """The fewest words ``[S]`` from each state to an accepting one; -1 if none can be reached."""
    distance = np.where(automaton.accepting, 0, -1)
    step = 0
    while True:
        is_next = np.append(distance >= 0, False)[automaton.table].any(1) & (distance < 0)
        if not is_next.any():
            return distance
        step += 1
        distance[is_next] = step


def reduced(automaton: Automaton) -> Automaton:
    """The minimal automaton of the same language: fewest states and classes.

    States that are unreachable or cannot reach acceptance are trimmed; then Moore's partition refinement; then classes
    that no state distinguishes are merged.
    """
    small = trimmed(automaton)
    if small.empty:
        return small
    block = _blocks(small)
    count = int(block.max()) + 1
    first_state = np.full(count, len(block))
    np.minimum.at(first_state, block, np.arange(len(block)))
    # Ordered by first state, so that the block of the start state becomes state 0.
    order = np.argsort(first_state)
    new_state = np.empty(count, dtype=np.int64)
    new_state[order] = np.arange(count)
    renumbered = np.append(new_state[block], DEAD)
    states = first_state[order]
    return merged_classes(Automaton(small.classes, renumbered[small.table[states]], small.accepting[states]))


def trimmed(automaton: Automaton) -> Automaton:
    """The same language without states that are unreachable or cannot reach acceptance; one state if it is empty."""
    can_accept = shortest(automaton) >= 0
    is_reached = np.zeros(len(can_accept), dtype=bool)
    frontier = np.array([0])
    while len(frontier):
        is_reached[frontier] = True
        successors = np.unique(automaton.table[frontier])
        successors = successors[successors != DEAD]
        frontier = successors[can_accept[successors] & ~is_reached[successors]]
    keep = is_reached & can_accept
    if not keep[0]:
        return Automaton(automaton.classes, np.full((1, automaton.table.shape[1]), DEAD), np.zeros(1, dtype=bool))
    new_state = np.append(np.where(keep, np.cumsum(keep) - 1, DEAD), DEAD)
    return Automaton(automaton.classes, new_state[automaton.table[keep]], automaton.accepting[keep])


def merged_classes(automaton: Automaton) -> Automaton:
    """The same automaton with classes merged that no state distinguishes; OUTSIDE stays separate."""
    columns, inverse = np.unique(automaton.table[:, 1:], axis=1, return_inverse=True)
    table = np.concatenate([np.full((len(columns), 1), DEAD), columns], axis=1)
    new_class = np.concatenate([[OUTSIDE], inverse.reshape(-1) + 1])
    return Automaton(new_class[automaton.classes], table, automaton.accepting)


def _blocks(automaton: Automaton) -> Ints:
    """The block ``[S]`` of each state of a trimmed automaton: states in the same block accept the same suffixes."""
    # Equivalent states have shortest and longest suffixes of equal length. Starting from these saves one round of
    # refinement for each state of a long chain.
    block = _numbered(shortest(automaton) * (len(automaton.table) + 2) + _longest(automaton) + 1)
    while True:
        block_or_dead, blocks = np.append(block, -1), int(block.max()) + 1
        finer = block
        # As many columns at a time as fit a number.
        columns_at_once = max(1, int((62 - math.log2(len(block) + 1)) / math.log2(blocks + 1)))
        for first in range(1, automaton.table.shape[1], columns_at_once):
            for column in automaton.table.T[first : first + columns_at_once]:
                finer = finer * (blocks + 1) + block_or_dead[column] + 1
            finer = _numbered(finer)
        if finer.max() == block.max():
            return block
        block = finer


def _numbered(keys: Ints) -> Ints:
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _longest(automaton: Automaton) -> Ints:
    """The most words ``[S]`` from each state of a trimmed automaton to an accepting one; -1 if unbounded."""
    longest = np.full(len(automaton.table), -1, dtype=np.int64)
    step = 0
    while True:
        is_next = np.append(longest >= 0, True)[automaton.table].all(1) & (longest < 0)
        if not is_next.any():
            return longest
        longest[is_next] = step
        step += 1
