"""Checks that an author's class can be a control, made by the registry and by the constructor."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel

from dlmctl.errors import UserError

# Keys that a recipe allows in place of a control's name, and that so cannot be one.
RESERVED = ("all", "any", "not", "weight")
# The package of the classes that have the first three of these names; authors' classes are elsewhere.
OWN = "dlmctl.control."


def name_fault(kind: type) -> str | None:
    """What is wrong with a class's ``name``, which is used in recipes, results and the names of folders."""
    name = getattr(kind, "name", None)
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        return f"has name = {name!r}, and a name is a line of text" if hasattr(kind, "name") else "has no name"
    if name in RESERVED and not kind.__module__.startswith(OWN):
        return f"has a name that is reserved in recipes ({', '.join(RESERVED)})"
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
    return f"has weight = {str(weight)[:40]}, which is not a finite number from 0"


def name_and_params(kind: type) -> tuple[str, type[BaseModel]]:
    """The name and the ``Params`` of a class that can be a control.

    Raises:
        UserError: the class cannot be a control.
    """
    fault = name_fault(kind) or params_fault(kind) or weight_fault(kind)
    if fault is not None:
        raise UserError(f"{fault}.", where=f"control class {kind.__name__} ({kind.__module__})")
    control: Any = kind
    return control.name, control.Params
