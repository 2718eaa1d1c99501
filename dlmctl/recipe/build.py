"""Build the control objects of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from dlmctl.control.base import All, AnyOf, Control, Not
from dlmctl.control.registry import find_control
from dlmctl.errors import UserError, typed_message
from dlmctl.recipe.recipe import COMBINATIONS, ControlSpec, Misplaced


def build_control(specs: Sequence[ControlSpec]) -> Control[Any] | None:
    """The control that a recipe's entries describe, or None if there are none.

    Raises:
        Misplaced: a control's own code fails.
    """
    controls = [_build(spec) for spec in specs]
    if not controls:
        return None
    return controls[0] if len(controls) == 1 else All(controls)


def _build(spec: ControlSpec) -> Control[Any]:
    if spec.control is not None:
        return spec.control
    if spec.name in COMBINATIONS:
        control = combination(spec.name, [_build(part) for part in spec.parts])
    else:
        control_class = find_control(spec.name)
        sets = [control_class.Params.model_validate(params) for params in spec.params]
        control = control_from_sets(control_class, spec, sets)
    control.weight *= spec.weight  # a control class may have its own weight
    return control


def control_from_sets(control_class: type[Control[Any]], spec: ControlSpec, sets: Sequence[BaseModel]) -> Control[Any]:
    """The control of an entry, from its parameter sets.

    Raises:
        Misplaced: the control's own code fails.
    """
    try:
        return control_class.each(sets)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # third-party code may raise anything
        what = f"control {spec.name!r} ({control_class.__module__}) cannot be created: {typed_message(error)}."
        raise Misplaced(spec.place, what) from error


def combination(name: str, parts: Sequence[Control[Any]]) -> Control[Any]:
    """The combination of controls with this name in a recipe: all, any or not."""
    if name == "not":
        return Not(parts[0])
    return All(parts) if name == "all" else AnyOf(parts)
