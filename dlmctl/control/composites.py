"""How controls combine: all of them, any of them, and not."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check, joined, turned_round
from dlmctl.control.prepared import Part, Prepared, PreparedAll, PreparedAny, PreparedNot, lacks_energy
from dlmctl.control.state import BatchContext
from dlmctl.errors import UserError

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained


class Composite(Control[ControlParams]):
    """Base of the combinations: passes every call on to its ``parts``.

    Raises:
        UserError: there are no parts, or one is no control.
    """

    Params = ControlParams

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        super().__init__()
        self.parts = list(parts)
        if not self.parts:
            raise UserError("needs controls inside.", where=f"control {self.name!r}")
        for part in self.parts:
            if not isinstance(part, Control):
                raise UserError(f"{part!r} is not a control.", remedy='A control is an object such as Contains("pub").')

    def attach(self, model: Pretrained) -> None:
        for part in self.parts:
            part.load_from(model)

    def checks_aside(self) -> bool:
        return all(part.checks_aside() for part in self.parts)

    def under_not(self) -> Control[Any]:
        loose = copy.copy(self)
        loose.parts = [part.loose() for part in self.parts]
        return loose

    def _ready(self, batch: BatchContext[Any]) -> list[Part]:
        return [Part(part.name, part.weight, part.ready(batch)) for part in self.parts]

    def _verdicts(self, samples: Sequence[int], texts: Sequence[Sequence[str]]) -> list[tuple[Check, ...]]:
        return list(zip(*(part.verdicts(samples, texts) for part in self.parts), strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts!r})"


class All(Composite):
    """Every part is to hold."""

    name = "all"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        flat: list[Control[Any]] = []
        for part in parts:
            flat.extend([part.weight * one for one in part.parts] if isinstance(part, All) else [part])
        super().__init__(flat)

    def range_of(self, sample: int) -> tuple[int, int] | None:
        """The overlap of the parts' ranges; fewest above most means that no length serves them all."""
        ranges = [found for part in self.parts if (found := part.range_of(sample)) is not None]
        return (max(low for low, _ in ranges), min(high for _, high in ranges)) if ranges else None

    def lengths_of(self, sample: int, most: int) -> Sequence[float] | None:
        """Those of the first part that has any."""
        return next((found for part in self.parts if (found := part.lengths_of(sample, most)) is not None), None)

    def ready(self, batch: BatchContext[Any]) -> PreparedAll:
        return PreparedAll(self._ready(batch))

    def verdicts(self, samples: Sequence[int], texts: Sequence[Sequence[str]]) -> list[Check]:
        """Passed if all parts passed; the score is their mean."""
        return [joined(row) for row in self._verdicts(samples, texts)]


class AnyOf(Composite):
    """At least one part is to hold. A text is led to one, by their weights (``dlmctl.control.ways``).

    Raises:
        UserError: as of ``Composite``, or no part has a weight above 0.
    """

    name = "any"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        super().__init__(parts)
        if not any(part.weight > 0 for part in self.parts):
            raise UserError("`any` needs a control whose weight is above 0.")

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        """All parts side by side, for who lays an ``any`` out as a whole."""
        parts = [part for part in self._ready(batch) if part.weight > 0]
        return Prepared() if any(lacks_energy(part.prepared) for part in parts) else PreparedAny(parts)

    def verdicts(self, samples: Sequence[int], texts: Sequence[Sequence[str]]) -> list[Check]:
        """The best part decides."""
        rows = self._verdicts(samples, texts)
        return [max(row, key=lambda check: (check.passed, check.score)) for row in rows]


class Not(Composite):
    """One part is not to hold."""

    name = "not"

    def __init__(self, part: Control[Any]) -> None:
        super().__init__([part])

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        (part,) = self.parts
        prepared = part.ready(batch)
        exact = prepared.negated()
        if exact is not None or lacks_energy(prepared):
            return exact or Prepared()  # what has no contrary that guides is left to the check
        found = PreparedNot(Part(part.name, part.share, prepared))
        # Numbers of words that are settled need no guidance.
        found.exact = part.by_length and all(layout.words is not None for layout in batch.layouts)
        return found

    def verdicts(self, samples: Sequence[int], texts: Sequence[Sequence[str]]) -> list[Check]:
        rows = self.parts[0].loose().verdicts(samples, texts)
        return [turned_round(check) for check in rows]
