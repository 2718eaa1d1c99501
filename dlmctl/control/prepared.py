"""A control laid out for one batch: what the sampler asks at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.control.state import ControlState

# -log p of a control that is all but satisfied; below it the negation would grow without bound.
SMALLEST_ENERGY = 1e-3


class Prepared:
    """Base of prepared controls. Each method is optional, but one of them must steer.

    Attributes:
        exact: whether ``restrict`` and ``constrain`` alone hold the words to the control. Its energy then serves only
            where there are no word logits, and under ``any`` and ``not``.
    """

    exact = False

    def energy(self, state: ControlState) -> Tensor:
        """How far each text is from what is wanted: ``[B]``, in nats, lower is better, differentiable."""
        raise NotImplementedError

    def restrict(self, logits: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` with -inf where a word is out of the question. Asked at every step."""
        return logits

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` given that the constraint holds, where that can be said exactly.

        For constraints that no single position decides. Asked at every step, times ``t [B]``, after ``restrict`` of
        every control and after guidance; with t = 0 for the finished text, whose words are the likeliest ones.
        """
        return logits

    def verify(self, logits: Tensor) -> None:
        """Asked before the first step, with -inf in ``logits [B, L, V]`` for what all controls together exclude.

        Raises:
            RecipeError: nothing that is left can satisfy this control.
        """


class Part(NamedTuple):
    """One of several controls that are to hold: its name, its share of the guidance, and itself."""

    name: str
    weight: float
    prepared: Prepared


class PreparedAll(Prepared):
    """Every part: the weighted sum of the energies, all exact constraints in turn."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    def energy(self, state: ControlState) -> Tensor:
        first, *others = (part.weight * part.prepared.energy(state) for part in self.parts)
        return sum(others, start=first)

    def restrict(self, logits: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.prepared.restrict(logits)
        return logits

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.prepared.constrain(logits, t)
        return logits

    def verify(self, logits: Tensor) -> None:
        for part in self.parts:
            part.prepared.verify(logits)


class PreparedAny(Prepared):
    """At least one part: a soft minimum of the weighted energies, -log sum exp(-E)."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)

    def energy(self, state: ControlState) -> Tensor:
        first, *others = (-part.weight * part.prepared.energy(state) for part in self.parts)
        for other in others:
            first = first.logaddexp(other)
        return -first


class PreparedNot(Prepared):
    """The contrary of one control: for an energy -log p, -log(1 - p), bounded where p nears 1."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def energy(self, state: ControlState) -> Tensor:
        return -(-(-self.prepared.energy(state).clamp(min=SMALLEST_ENERGY)).expm1()).log()
