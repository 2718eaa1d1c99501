"""Languages of texts in which a quantity of the words, such as their syllables, adds up to so much."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from dlmctl.control.automata.dfa import (
    DEAD,
    MAX_CELLS,
    MAX_STATES,
    OUTSIDE,
    Automaton,
    Ints,
    TooLarge,
    reduced,
)
from dlmctl.control.automata.languages import Alphabet


@dataclass(frozen=True, eq=False)
class Quantity:
    """What each word adds to the total of a text, which may depend on the word before.

    Attributes:
        classes: ``[V]``, the class of each token; OUTSIDE for tokens that are not words.
        contexts: ``[K, C]``, the context in which a word of each class leaves a text, from each context; DEAD if the
            word must not be there. A text begins in context 0.
        added: ``[K, C]``, what the word adds there, at least 0.
    """

    classes: Ints
    contexts: Ints
    added: Ints


def quantity(
    alphabet: Alphabet,
    contexts: int,
    step: Callable[[int, str], tuple[int, int] | None],
    kind: Callable[[str], Hashable],
) -> Quantity:
    """The quantity of the words of an alphabet.

    Args:
        contexts: their number.
        step: the context after a word and what the word adds, from the context before it; None if a text must not have
            the word there.
        kind: words of the same kind have the same steps; ``step`` is called for one of them.
    """
    kinds = [None if word is None else kind(word) for word in alphabet.words]
    steps: dict[Hashable, tuple[tuple[int, int] | None, ...]] = {}
    for word, each in zip(alphabet.words, kinds, strict=True):
        if word is not None and each not in steps:
            steps[each] = tuple(step(context, word) for context in range(contexts))
    distinct = {row: number for number, row in enumerate(dict.fromkeys(steps.values()), start=OUTSIDE + 1)}
    columns = [((DEAD, 0),) * contexts, *(tuple(cell or (DEAD, 0) for cell in row) for row in distinct)]
    table = np.array(columns, dtype=np.int64).transpose(2, 1, 0)
    classes = [OUTSIDE if each is None else distinct[steps[each]] for each in kinds]
    return Quantity(np.array(classes, dtype=np.int64), table[0], table[1])


def with_total(amounts: Quantity, least: int, most: int) -> Automaton:
    """The texts whose words add up to ``least`` to ``most``.

    Raises:
        TooLarge: ``most`` is too large.
    """
    contexts, classes = amounts.contexts.shape
    limit = min(MAX_STATES, MAX_CELLS // classes) // contexts - 1
    if most > limit:
        what = f"a total of up to {most:,} is asked for; with this vocabulary one up to {limit:,} can be held."
        raise TooLarge(what, remedy="Ask for a smaller number or a smaller tolerance.")
    # A state is a context and the total so far; state 0 is the beginning.
    totals = np.arange(most + 1)[:, None, None]
    after = totals + amounts.added
    possible = (amounts.contexts != DEAD) & (after <= most)
    table = np.where(possible, after * contexts + amounts.contexts, DEAD).reshape(-1, classes)
    return reduced(Automaton(amounts.classes, table, np.arange(len(table)) >= least * contexts))
