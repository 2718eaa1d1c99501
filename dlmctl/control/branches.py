"""The choice of a branch under `any`: each draw settles on one branch, which guides it fully.

Energies of several branches, summed as probabilities, lead to texts that are a little of each, and evidence, hints and
exact words cannot be mixed at all. The check does not depend on the choice: any branch that holds is enough, and drafts
of later rounds choose anew.

``not`` is pushed inwards, to where it can be exact: not (a or b) is not a and not b; not (a and b) leaves a choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dlmctl.control.base import All, AnyOf, Control, Not
from dlmctl.control.combined import parts_of
from dlmctl.diffusion.noise import BRANCH, Draw

# Combinations of branches tried for a draw until one is possible, and how many of them are drawn by weight; after that
# all branches are equally likely, so that a rare one is found as well.
MAX_TRIES, MAX_TRIES_BY_WEIGHT = 64, 16

PossibleCounts = NDArray[np.bool_]
"""For each number of words from 0 to the most that a model holds, whether a text may have it."""


class Branch(NamedTuple):
    """One combination of branches: one for each choice.

    Attributes:
        picks: the index of the branch at each choice; two combinations with the same picks are equal.
        control: all controls along it.
        beside: the same, separately for each part of the whole control (``parts_of``).
    """

    picks: tuple[int, ...]
    control: Control[Any]
    beside: tuple[Control[Any], ...]


def has_choices(control: Control[Any]) -> bool:
    """Whether the control may contain a choice, so that texts can be guided in different ways."""
    return any(
        isinstance(part, AnyOf | All) or (isinstance(part, Not) and isinstance(part.parts[0], AnyOf | All | Not))
        for part in parts_of(control)
    )


def candidate_branches(control: Control[Any], draw: Draw, most: int) -> Iterator[Branch]:
    """The branches for a draw: first the one that it uses, then others to try if that is impossible.

    The same for all particles of a draw. Branches whose numbers of words do not fit the others are skipped.

    Args:
        most: the most words that a text of the model can have.
    """
    stream = draw._replace(particle=0).generator(BRANCH)
    seen = set()
    for attempt in range(MAX_TRIES):
        chooser = _BranchChooser(control, draw.sample, most, stream, uniform=attempt >= MAX_TRIES_BY_WEIGHT)
        weight = control.weight if isinstance(control, All) else 1.0
        chosen = tuple(_combine(list(_resolve(part, weight, chooser))) for part in parts_of(control))
        if (picks := tuple(chooser.picks)) not in seen:
            seen.add(picks)
            yield Branch(picks, All(chosen), chosen)


def any_branches(control: Control[Any], *, inside: bool = False) -> Iterator[Control[Any]]:
    """The controls in the branches of every `any`, one by one, except those under `not`."""
    if isinstance(control, AnyOf):
        for _, part, _ in _options(control, negated=False):
            yield from any_branches(part, inside=True)
    elif isinstance(control, All):
        for part in control.parts:
            yield from any_branches(part, inside=inside)
    elif inside and not isinstance(control, Not):
        yield control


def possible_word_counts(control: Control[Any], sample: int, most: int, *, negated: bool = False) -> PossibleCounts:
    """The numbers of words ``[most + 1]`` with which a sample can satisfy a control, or its negation."""
    if isinstance(control, Not):
        return possible_word_counts(control.parts[0], sample, most, negated=not negated)
    if isinstance(control, All | AnyOf):
        parts = (
            [part for _, part, _ in _options(control, negated=negated)]
            if _is_choice(control, negated=negated)
            else control.parts
        )
        by_part = [possible_word_counts(part, sample, most, negated=negated) for part in parts]
        return np.any(by_part, 0) if _is_choice(control, negated=negated) else np.all(by_part, 0)
    span = control.range_of(sample)
    counts = np.arange(most + 1)
    if span is None or (negated and not control.by_length):
        return counts >= 0
    within: PossibleCounts = (counts >= span[0]) & (counts <= span[1])
    return ~within if negated else within


def excludes_lengths(control: Control[Any]) -> bool:
    """Whether ``not`` excludes particular numbers of words."""
    return any(isinstance(part, Not) and part.parts[0].by_length for part in parts_of(control))


class _BranchChooser:
    """Draws the branches of one draw, one choice after the other.

    Args:
        uniform: whether all branches are equally likely, rather than by weight.
    """

    def __init__(
        self, control: Control[Any], sample: int, most: int, stream: torch.Generator, *, uniform: bool
    ) -> None:
        self.sample, self.most, self.stream, self.uniform = sample, most, stream, uniform
        self.possible = possible_word_counts(control, sample, most)
        self.picks: list[int] = []

    def __call__(self, control: All | AnyOf, *, negated: bool) -> tuple[Control[Any], float]:
        """Draw a branch; return it and its share, which is a probability here rather than a share of the guidance."""
        options = _options(control, negated=negated)
        possible = [
            self.possible & possible_word_counts(part, self.sample, self.most, negated=negated)
            for _, part, _ in options
        ]
        # If none fits, laying out the text raises the error.
        fitting = [at for at, counts in enumerate(possible) if counts.any()] or list(range(len(options)))
        probabilities = torch.tensor([1.0 if self.uniform else options[at][2] for at in fitting], dtype=torch.float64)
        # A single branch is no choice, and uses no random number.
        chosen = fitting[int(torch.multinomial(probabilities, 1, generator=self.stream)) if len(options) > 1 else 0]
        self.possible = possible[chosen]
        number, part, share = options[chosen]
        self.picks.append(number)
        return part, share


def _is_choice(control: Control[Any], *, negated: bool) -> bool:
    return isinstance(control, All if negated else AnyOf)


def _options(control: All | AnyOf, *, negated: bool) -> list[tuple[int, Control[Any], float]]:
    """The branches of a choice, each with its number and its probability: by weight, or equal under `not`."""
    if negated:
        return [(number, part, 1.0) for number, part in enumerate(control.parts)]
    return [(number, part, part.share) for number, part in enumerate(control.parts) if part.share > 0]


def _resolve(
    control: Control[Any], weight: float, choose: _BranchChooser, *, negated: bool = False
) -> Iterator[Control[Any]]:
    """The single controls that remain once every choice is made, scaled by the weights around them."""
    if isinstance(control, Not):
        yield from _resolve(control.parts[0], weight * control.weight, choose, negated=not negated)
    elif isinstance(control, All | AnyOf):
        weight *= control.weight
        if _is_choice(control, negated=negated):
            part, share = choose(control, negated=negated)
            yield from _resolve(part, weight / share, choose, negated=negated)
        else:
            for part in control.parts:
                yield from _resolve(part, weight, choose, negated=negated)
    else:
        yield (Not(control) if negated else control).scaled(weight)


def _combine(controls: list[Control[Any]]) -> Control[Any]:
    return controls[0] if len(controls) == 1 else All(controls)
