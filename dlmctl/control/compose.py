"""Controls made of controls: all of them, any of them, not this one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlmctl.control.base import Check, Control, ControlParams, ControlState, Setting

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.checkpoint.pretrained import Pretrained

# -log p of a control that is all but satisfied; below it the negation would grow without bound.
SMALLEST_ENERGY = 1e-3


class Composite(Control[ControlParams]):
    """Base of the combinations: passes every call on to its ``parts``."""

    Params = ControlParams

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        self.params = [ControlParams()]
        self.parts = list(parts)
        self.ragged = all(part.ragged for part in self.parts)

    def only(self, samples: Sequence[int]) -> Control[Any]:
        chosen = copy.copy(self)
        chosen.parts = [part.only(samples) for part in self.parts]
        return chosen

    def attach(self, pretrained: Pretrained) -> None:
        for part in self.parts:
            part.attach(pretrained)

    def prepare(self, setting: Setting) -> None:
        for part in self.parts:
            part.prepare(setting)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts!r})"


class All(Composite):
    """Every part: the weighted sum of the energies, all projections in turn."""

    name = "all"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        flat: list[Control[Any]] = []
        for part in parts:
            nested = part.parts if isinstance(part, All) and part.weight == 1 else [part]
            flat.extend(nested)
        super().__init__(flat)

    def word_count(self, sample: int) -> tuple[int, int] | None:
        """The overlap of the parts' ranges; fewest above most means that no length serves them all."""
        ranges = [found for part in self.parts if (found := part.word_count(sample)) is not None]
        return (max(low for low, _ in ranges), min(high for _, high in ranges)) if ranges else None

    def energy(self, state: ControlState) -> Tensor:
        total = self.parts[0].weight * self.parts[0].energy(state)
        for part in self.parts[1:]:
            total = total + part.weight * part.energy(state)
        return total

    def restrict(self, logits: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.restrict(logits)
        return logits

    def condition(self, logits: Tensor, t: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.condition(logits, t)
        return logits

    def verify(self, logits: Tensor) -> None:
        for part in self.parts:
            part.verify(logits)

    def project(self, x0: Tensor, state: ControlState) -> Tensor:
        for part in self.parts:
            x0 = part.project(x0, state)
        return x0

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """Passed if all parts passed; the score is their mean."""
        return [
            Check(sum(c.score for c in row) / len(row), all(c.passed for c in row), "; ".join(c.why for c in row))
            for row in zip(*(part.check(words) for part in self.parts), strict=True)
        ]


def parts_of(control: Control[Any]) -> list[Control[Any]]:
    """The controls that are all to hold: the parts of an ``All``, or the control alone."""
    return control.parts if isinstance(control, All) else [control]


class AnyOf(Composite):
    """At least one part: a soft minimum of the weighted energies, -log sum exp(-E)."""

    name = "any"

    def energy(self, state: ControlState) -> Tensor:
        import torch

        return -torch.logsumexp(-torch.stack([part.weight * part.energy(state) for part in self.parts]), dim=0)

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """The best part decides."""
        checks = zip(*(part.check(words) for part in self.parts), strict=True)
        return [max(row, key=lambda check: (check.passed, check.score)) for row in checks]


class Not(Composite):
    """The contrary of one part: for an energy -log p, -log(1 - p), bounded where p nears 1."""

    name = "not"

    def __init__(self, part: Control[Any]) -> None:
        super().__init__([part])

    def energy(self, state: ControlState) -> Tensor:
        import torch

        return -torch.log(-torch.expm1(-self.parts[0].energy(state).clamp(min=SMALLEST_ENERGY)))

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        return [Check(1 - c.score, not c.passed, f"not: {c.why}") for c in self.parts[0].check(words)]
