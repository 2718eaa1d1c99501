"""Deterministic automata over the words of a vocabulary: what they are, and how they are made small.

Words that no transition tells apart share a class, so that the cost does not grow with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dlmctl.errors import RecipeError

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

# No way on from here.
DEAD = -1
# The class of tokens that are no words (START, END, PAD, UNK): they lead nowhere.
OUTSIDE = 0
# Bounds on an automaton, and on its table, of which a step of inference holds one copy a row.
MAX_STATES = 4096
MAX_CELLS = 1 << 18


class TooLarge(RecipeError):
    """An automaton would have more states than are allowed."""


def require_size(states: int, classes: int, most: int = MAX_STATES) -> None:
    """Bounds an automaton while it is built.

    Raises:
        TooLarge: it has more than ``most`` states or MAX_CELLS cells.
    """
    if states > most or states * classes > MAX_CELLS:
        raise TooLarge(
            f"what the controls ask for together needs an automaton of more than {min(most, MAX_CELLS // classes)} "
            "states.",
            remedy="Ask for fewer phrases, shorter repeats or a simpler pattern.",
        )


@dataclass(frozen=True)
class Automaton:
    """A language of texts: those whose words lead from state 0 to an accepting state.

    Attributes:
        classes: ``[V]``, the class of each token id; 0 for what is no word.
        table: ``[S, C]``, the state that a state and a class lead to, or DEAD. Class 0 always leads there.
        accepting: ``[S]``. No state accepts where the language is empty; else each state leads to one that does.
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
    """Classes ``[V]`` of words that no set tells apart, each of the ``singles`` (token ids) in a class of its own.

    Also the classes that make up each set and each single; ``sets`` holds ``[V]`` booleans, at most 60 of them.
    """
    keys = np.zeros(len(is_word), dtype=np.int64)
    for bit, members in enumerate(sets.values()):
        keys += members.astype(np.int64) << bit
    distinct = np.unique(np.asarray(singles, dtype=np.int64))
    keys[distinct] = (1 << len(sets)) + np.arange(len(distinct))
    classes = np.full(len(is_word), OUTSIDE, dtype=np.int64)
    classes[is_word] = np.unique(keys[is_word], return_inverse=True)[1] + 1
    found: dict[str | int, Ints] = {name: np.unique(classes[members & is_word]) for name, members in sets.items()}
    found.update({int(token): classes[token : token + 1] for token in distinct})
    return classes, found


def shortest(automaton: Automaton) -> Ints:
    """Words from each state to an accepting one, at least; -1 where none is reached. ``[S]``."""
    distance = np.where(automaton.accepting, 0, -1)
    step = 0
    while True:
        near = np.append(distance >= 0, False)[automaton.table].any(1) & (distance < 0)
        if not near.any():
            return distance
        step += 1
        distance[near] = step


def reduced(automaton: Automaton) -> Automaton:
    """The same language with the fewest states and classes.

    Trimmed to states that are reached and lead to acceptance; then Moore's partition refinement; then classes that
    every state treats alike are merged.
    """
    small = trimmed(automaton)
    if small.empty:
        return small
    part = _blocks(small)
    count = int(part.max()) + 1
    first = np.full(count, len(part))
    np.minimum.at(first, part, np.arange(len(part)))
    # The start's block comes first, whatever its number.
    order = np.argsort(first)
    number = np.empty(count, dtype=np.int64)
    number[order] = np.arange(count)
    to = np.append(number[part], DEAD)
    return merged_classes(Automaton(small.classes, to[small.table[first[order]]], small.accepting[first[order]]))


def trimmed(automaton: Automaton) -> Automaton:
    """The same language without states that are not reached or lead nowhere; one state where it is empty."""
    lead = shortest(automaton) >= 0
    reached = np.zeros(len(lead), dtype=bool)
    frontier = np.array([0])
    while len(frontier):
        reached[frontier] = True
        after = np.unique(automaton.table[frontier])
        after = after[after != DEAD]
        frontier = after[lead[after] & ~reached[after]]
    kept = reached & lead
    if not kept[0]:
        return Automaton(automaton.classes, np.full((1, automaton.table.shape[1]), DEAD), np.zeros(1, dtype=bool))
    number = np.append(np.where(kept, np.cumsum(kept) - 1, DEAD), DEAD)
    return Automaton(automaton.classes, number[automaton.table[kept]], automaton.accepting[kept])


def merged_classes(automaton: Automaton) -> Automaton:
    """The same automaton with the classes that every state treats alike made one; OUTSIDE stays apart."""
    columns, inverse = np.unique(automaton.table[:, 1:], axis=1, return_inverse=True)
    table = np.concatenate([np.full((len(columns), 1), DEAD), columns], axis=1)
    number = np.concatenate([[OUTSIDE], inverse.reshape(-1) + 1])
    return Automaton(number[automaton.classes], table, automaton.accepting)


def _blocks(automaton: Automaton) -> Ints:
    """The block ``[S]`` of each state of a trimmed automaton: states of one block accept the same endings."""
    # Equal states have equally long shortest and longest endings; to begin with these saves a round for each state of
    # a long chain.
    part = _numbered(shortest(automaton) * (len(automaton.table) + 2) + _longest(automaton) + 1)
    while True:
        to = np.append(part, -1)
        finer = part
        for column in automaton.table.T[1:]:
            finer = _numbered(finer * (len(part) + 1) + to[column] + 1)
        if finer.max() == part.max():
            return part
        part = finer


def _numbered(keys: Ints) -> Ints:
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _longest(automaton: Automaton) -> Ints:
    """Words from each state of a trimmed automaton to an accepting one, at most; -1 for without end. ``[S]``."""
    longest = np.full(len(automaton.table), -1, dtype=np.int64)
    step = 0
    while True:
        done = np.append(longest >= 0, True)[automaton.table].all(1) & (longest < 0)
        if not done.any():
            return longest
        longest[done] = step
        step += 1
