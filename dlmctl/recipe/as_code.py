"""A recipe as the Python program that draws the same texts."""

from __future__ import annotations

from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from dlmctl.checkpoint.resolve import family_of
from dlmctl.control.base import Control
from dlmctl.control.catalogue import find_plugin
from dlmctl.control.user_files import named_in
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.recipe import ControlSpec, Recipe, entry_of, every, specs_at

_JOINED = {"all": "All", "any": "AnyOf"}
# Said even where they are the defaults, as in a new recipe: whoever copies the program changes them first.
_SHOWN = ("samples", "seed")
_MATCHED = "# Matched sets are drawn by `dlmctl matched --recipe FILE`.\n"


def python_code(recipe: Recipe) -> str:
    """A program of the settings that the recipe gives: with control objects, or, where those cannot say it, with a
    ``Recipe``; of matched sets, which are drawn from a file, a comment.

    Raises:
        UserError: a control of the recipe cannot be imported.
    """
    if isinstance(recipe, MatchedRecipe):
        return _MATCHED
    given = _given(recipe)
    entries = [entry_of(entry) if isinstance(entry, Control) else entry for entry in recipe.controls]
    specs = specs_at(entries, ("controls",))
    # Only recipes have tables of targets, and only by them is a control of the user's own file imported.
    if "targets" in given or any(named_in(spec.name) for spec in every(specs)):
        lines = _with_recipe({"model": recipe.model, **given, **({"controls": entries} if entries else {})})
    else:
        lines = _with_controls(recipe.model, specs, given)
    return "\n".join([*lines, "    print(sample.text, sample.passed)", ""])


def _given(recipe: Recipe) -> dict[str, Any]:
    """The settings beside model and controls, less those that would be the same if nothing were said."""
    given = recipe.model_dump(mode="json", exclude_unset=True, exclude={"controls", "model", "description"})
    # A validated recipe has the settings of its preset filled in.
    for part, chosen in settings_of(recipe.preset, family_of(recipe.model))._asdict().items():
        usual, said = chosen.model_dump(mode="json"), given.pop(part, {})
        if differing := {name: value for name, value in said.items() if value != usual[name]}:
            given[part] = differing
    defaults = {name: field.get_default(call_default_factory=True) for name, field in Recipe.model_fields.items()}
    return {name: value for name, value in given.items() if name in _SHOWN or value != defaults[name]}


def _with_recipe(settings: Mapping[str, Any]) -> list[str]:
    said = [f"    {name}={value!r}," for name, value in settings.items()]
    return ["import dlmctl", "", "recipe = dlmctl.Recipe(", *said, ")", "for sample in dlmctl.run(recipe):"]


def _with_controls(model: str, specs: list[ControlSpec], given: Mapping[str, Any]) -> list[str]:
    imports: dict[str, set[str]] = {}
    parts = [_expression(spec, imports) for spec in specs]
    arguments = ["control"] if parts else []
    arguments += [f"{name}={value!r}" for name, value in given.items()]
    lines = ["import dlmctl", *(f"from {name} import {', '.join(sorted(imports[name]))}" for name in sorted(imports))]
    lines += ["", f"model = dlmctl.load({model!r})", *([f"control = {' & '.join(parts)}"] if parts else [])]
    return [*lines, f"for sample in model.generate({', '.join(arguments)}):"]


def _expression(spec: ControlSpec, imports: dict[str, set[str]]) -> str:
    """A control as Python; what it needs is added to ``imports``, names by module."""
    weight = "" if spec.weight == 1 else f"{spec.weight!r} * "
    parts = [_expression(part, imports) for part in spec.parts]
    if spec.name == "not":
        made = f"~{parts[0]}"
    elif spec.name in _JOINED:
        imports.setdefault("dlmctl", set()).add(_JOINED[spec.name])
        made = f"{_JOINED[spec.name]}([{', '.join(parts)}])"
    else:
        plugin = find_plugin(spec.name)
        imports.setdefault(plugin.module, set()).add(plugin.attribute)
        made = _made(plugin.attribute, spec.params)
    return f"({weight}{made})" if weight else made


def _made(name: str, sets: list[dict[str, Any]]) -> str:
    one = [_arguments(params) for params in sets]
    if len(one) == 1:
        return f"{name}({one[0]})"
    return f"{name}.each([{', '.join(f'{name}.Params({params})' for params in one)}])"


def _arguments(params: Mapping[str, Any]) -> str:
    """Parameters as they are handed over; a name such as ``customer rating`` cannot stand before ``=``."""
    plain = {key: value for key, value in params.items() if key.isidentifier() and not iskeyword(key)}
    others = {key: value for key, value in params.items() if key not in plain}
    said = [f"{key}={value!r}" for key, value in plain.items()]
    return ", ".join([*said, *([f"**{others!r}"] if others else [])])
