"""The controls that a recipe names, as objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from dlmctl.control.base import All, AnyOf, Control, Not
from dlmctl.control.registry import find_control
from dlmctl.errors import UserError, first_line
from dlmctl.recipe.recipe import COMBINATIONS, ControlSpec, Misplaced


def build_control(specs: Sequence[ControlSpec]) -> Control[Any] | None:
    """The control that a recipe's entries describe, or None if there are none.

    Raises:
        Misplaced: the code of one fails.
    """
    controls = [_build(spec) for spec in specs]
    if not controls:
        return None
    return controls[0] if len(controls) == 1 else All(controls)


def _build(spec: ControlSpec) -> Control[Any]:
    if spec.made is not None:
        return spec.made
    if spec.name in COMBINATIONS:
        made = combined(spec.name, [_build(part) for part in spec.parts])
    else:
        kind = find_control(spec.name)
        made = made_of(kind, spec, [kind.Params.model_validate(params) for params in spec.params])
    made.weight *= spec.weight  # a control may bring a weight of its own
    return made


def made_of(kind: type[Control[Any]], spec: ControlSpec, sets: Sequence[BaseModel]) -> Control[Any]:
    """The control of an entry, from its sets of parameters.

    Raises:
        Misplaced: its author's code fails.
    """
    try:
        return kind.each(sets)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever an author's code may do
        what = f"control {spec.name!r} ({kind.__module__}) cannot be made: {first_line(error)}."
        raise Misplaced(spec.place, what) from error


def combined(name: str, parts: Sequence[Control[Any]]) -> Control[Any]:
    """The combination of controls that has this name in a recipe: all, any or not."""
    if name == "not":
        return Not(parts[0])
    return All(parts) if name == "all" else AnyOf(parts)
