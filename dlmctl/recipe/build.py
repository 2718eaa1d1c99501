"""Build the control objects of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from dlmctl.control.base import All, AnyOf, Control, Not
from dlmctl.control.registry import find_control
from dlmctl.errors import UserError, typed_message
from dlmctl.recipe.explain import explain
from dlmctl.recipe.readable import PythonSettings
from dlmctl.recipe.recipe import COMBINATIONS, ControlSpec, Misplaced
from dlmctl.recipe.yaml_file import SettingsFile


def build_control(specs: Sequence[ControlSpec]) -> Control[Any] | None:
    """The control that a recipe's entries describe, or None if there are none.

    Raises:
        RecipeError: parameters do not validate, in a recipe made in Python.
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
        # A recipe from a file has been validated.
        sets = params_of_entry(control_class, spec, PythonSettings("recipe"))
        control = control_from_sets(control_class, spec, sets)
    control.weight *= spec.weight  # a control class may have its own weight
    return control


def params_of_entry(control_class: type[Control[Any]], spec: ControlSpec, file: SettingsFile) -> list[BaseModel]:
    """The parameter sets of an entry.

    Raises:
        RecipeError: one does not validate; the message names its place in ``file``.
        Misplaced: the control's own validators fail.
    """
    return [params_of_set(control_class, spec, number, file) for number in range(len(spec.params))]


def params_of_set(control_class: type[Control[Any]], spec: ControlSpec, number: int, file: SettingsFile) -> BaseModel:
    """The parameter set of an entry with this number. Raises as ``params_of_entry``."""
    params = spec.params[number]
    try:
        return control_class.Params.model_validate(params)
    except ValidationError as error:
        raise explain(error, control_class.Params, spec.place_of(number), file, params) from None
    except UserError:
        raise
    except Exception as error:  # from a plug-in's own validators
        what = f"the control {spec.name!r} fails on these parameters: {typed_message(error)}."
        raise Misplaced(spec.place_of(number), what) from error


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
