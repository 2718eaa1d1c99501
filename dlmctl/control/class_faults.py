"""What an author's class lacks to be a control, found before it is used; in the registry and where it is made."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel

from dlmctl.errors import UserError

# What stands where a control's name stands in a recipe, and so cannot be one.
RESERVED = ("all", "any", "not", "weight")
# Where the classes are that have the first three; those of authors lie elsewhere.
OWN = "dlmctl.control."


def name_fault(kind: type) -> str | None:
    """What is wrong with a class's ``name``, which stands in recipes, results and the names of folders."""
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        return f"has name = {name!r}, and a name is a line of text" if hasattr(kind, "name") else "has no name"
    if name in RESERVED and not kind.__module__.startswith(OWN):
        return f"has a name that recipes use themselves ({', '.join(RESERVED)})"
    return None


def params_fault(kind: type) -> str | None:
    """What is wrong with a class's ``Params``."""
    params = getattr(kind, "Params", None)
    return None if isinstance(params, type) and issubclass(params, BaseModel) else "has no Params, a pydantic model"


def weight_fault(kind: type) -> str | None:
    """What is wrong with a class's ``weight``."""
    weight = getattr(kind, "weight", 1.0)
    if isinstance(weight, int | float) and 0 <= weight < math.inf:
        return None
    return f"has weight = {str(weight)[:40]}, which is no number from 0"


def sound(kind: type) -> tuple[str, type[BaseModel]]:
    """The name and the parameters of a class that can be a control.

    Raises:
        UserError: it cannot.
    """
    fault = name_fault(kind) or params_fault(kind) or weight_fault(kind)
    if fault is not None:
        raise UserError(f"{fault}.", where=f"control class {kind.__name__} ({kind.__module__})")
    found: Any = kind
    return found.name, found.Params
