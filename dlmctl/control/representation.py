"""How a control is shown in Python: as it is written there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from dlmctl.control.base import Control

# The most sets of parameters that are shown.
MAX_SETS = 3


def representation(control: Control[Any]) -> str:
    """``0.5 * Length(words=8, tolerance=0)``, or ``Length.each([{'words': 5}, {'words': 7}])``."""
    name, sets = type(control).__name__, control.sets
    weight = "" if control.share == 1 else f"{control.share:g} * "
    parts = getattr(control, "parts", None)
    if parts is not None:
        return f"{weight}{name}({parts[0] if name == 'Not' else parts!r})"
    if len(sets) == 1:
        return f"{weight}{name}({_keywords(sets[0])})"
    shown = ", ".join(repr(params.model_dump(exclude_unset=True)) for params in sets[:MAX_SETS])
    more = f", ... {len(sets) - MAX_SETS} more" if len(sets) > MAX_SETS else ""
    return f"{weight}{name}.each([{shown}{more}])"


def _keywords(params: BaseModel) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in params.model_dump().items())
