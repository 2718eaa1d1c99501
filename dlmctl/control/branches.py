"""Which way a text goes where `any` leaves a choice: each draw settles on one branch, which guides with all it has.

Energies of several branches, summed as probabilities, lead a text to what is a little of each, and evidence, hints and
exact words cannot be mixed at all. The check is not told of the way: whichever branch holds is enough, and drafts of
later rounds go ways of their own.

``not`` goes inwards, to where it can be exact: not (a or b) is not a and not b; not (a and b) leaves a choice.
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

# Ways that are tried for a draw until one is possible, and how many of them by the weights: then all branches are
# alike, so that a rare one is found as well.
MOST_TRIES, BY_WEIGHT = 64, 16

Counts = NDArray[np.bool_]
"""Whether texts may have 0 words and more, up to the most of a model."""


class Branch(NamedTuple):
    """One way through the branches.

    Attributes:
        picks: which branch it takes at each choice; two ways of a control that take the same are one.
        control: all that is asked along it.
        beside: the same, of each of the controls that stand side by side (``parts_of``).
    """

    picks: tuple[int, ...]
    control: Control[Any]
    beside: tuple[Control[Any], ...]


def leaves_open(control: Control[Any]) -> bool:
    """Whether a text might be led in other ways than by the control as it stands."""
    return any(
        isinstance(part, AnyOf | All) or (isinstance(part, Not) and isinstance(part.parts[0], AnyOf | All | Not))
        for part in parts_of(control)
    )


def ways(control: Control[Any], draw: Draw, most: int) -> Iterator[Branch]:
    """The ways of a control, the one that a draw goes first, then others to try where that one is impossible.

    The same for all particles of a draw. Branches whose numbers of words do not fit the others are not taken.

    Args:
        most: words that a text of the model may have.
    """
    stream = draw._replace(particle=0).generator(BRANCH)
    seen = set()
    for tried in range(MOST_TRIES):
        choice = _Choice(control, draw.sample, most, stream, alike=tried >= BY_WEIGHT)
        weight = control.weight if isinstance(control, All) else 1.0
        beside = tuple(_as_one(list(_led(part, weight, choice))) for part in parts_of(control))
        if (picks := tuple(choice.picks)) not in seen:
            seen.add(picks)
            yield Branch(picks, All(beside), beside)


def branches(control: Control[Any], *, inside: bool = False) -> Iterator[Control[Any]]:
    """What the branches of every `any` ask of a text, one by one; not those below `not`."""
    if isinstance(control, AnyOf):
        for _, part, _ in _options(control, negated=False):
            yield from branches(part, inside=True)
    elif isinstance(control, All):
        for part in control.parts:
            yield from branches(part, inside=inside)
    elif inside and not isinstance(control, Not):
        yield control


def lengths_left(control: Control[Any], sample: int, most: int, *, negated: bool = False) -> Counts:
    """The numbers of words ``[most + 1]`` with which a sample may satisfy a control, or its contrary."""
    if isinstance(control, Not):
        return lengths_left(control.parts[0], sample, most, negated=not negated)
    if isinstance(control, All | AnyOf):
        parts = (
            [part for _, part, _ in _options(control, negated=negated)]
            if _is_choice(control, negated=negated)
            else control.parts
        )
        found = [lengths_left(part, sample, most, negated=negated) for part in parts]
        return np.any(found, 0) if _is_choice(control, negated=negated) else np.all(found, 0)
    span = control.range_of(sample)
    counts = np.arange(most + 1)
    if span is None or (negated and not control.by_length):
        return counts >= 0
    within: Counts = (counts >= span[0]) & (counts <= span[1])
    return ~within if negated else within


def shuts_out(control: Control[Any]) -> bool:
    """Whether single numbers of words are shut out, by ``not``."""
    return any(isinstance(part, Not) and part.parts[0].by_length for part in parts_of(control))


class _Choice:
    """The branches that one draw takes, one choice after the other."""

    def __init__(self, control: Control[Any], sample: int, most: int, stream: torch.Generator, *, alike: bool) -> None:
        self.sample, self.most, self.stream, self.alike = sample, most, stream, alike
        self.left = lengths_left(control, sample, most)
        self.picks: list[int] = []

    def __call__(self, control: All | AnyOf, *, negated: bool) -> tuple[Control[Any], float]:
        """One branch and how likely it was made, which is no share of the guidance."""
        options = _options(control, negated=negated)
        left = [self.left & lengths_left(part, self.sample, self.most, negated=negated) for _, part, _ in options]
        # If none fits, the layout of the text says so.
        fitting = [at for at, counts in enumerate(left) if counts.any()] or list(range(len(options)))
        chances = torch.tensor([1.0 if self.alike else options[at][2] for at in fitting], dtype=torch.float64)
        # One branch alone is no choice, and uses up no chance.
        taken = fitting[int(torch.multinomial(chances, 1, generator=self.stream)) if len(options) > 1 else 0]
        self.left = left[taken]
        number, part, share = options[taken]
        self.picks.append(number)
        return part, share


def _is_choice(control: Control[Any], *, negated: bool) -> bool:
    return isinstance(control, All if negated else AnyOf)


def _options(control: All | AnyOf, *, negated: bool) -> list[tuple[int, Control[Any], float]]:
    """The branches of a choice, each with its number and how likely it is: by its weight, below `not` all alike."""
    if negated:
        return [(number, part, 1.0) for number, part in enumerate(control.parts)]
    return [(number, part, part.share) for number, part in enumerate(control.parts) if part.share > 0]


def _led(control: Control[Any], weight: float, choice: _Choice, *, negated: bool = False) -> Iterator[Control[Any]]:
    """What is asked of a text, without any choice, by the weights along the way."""
    if isinstance(control, Not):
        yield from _led(control.parts[0], weight * control.weight, choice, negated=not negated)
    elif isinstance(control, All | AnyOf):
        weight *= control.weight
        if _is_choice(control, negated=negated):
            part, share = choice(control, negated=negated)
            yield from _led(part, weight / share, choice, negated=negated)
        else:
            for part in control.parts:
                yield from _led(part, weight, choice, negated=negated)
    else:
        yield (Not(control) if negated else control).scaled(weight)


def _as_one(controls: list[Control[Any]]) -> Control[Any]:
    return controls[0] if len(controls) == 1 else All(controls)
