"""Convert a recipe to a Python program that draws the same texts."""

from __future__ import annotations

from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from dlmctl.checkpoint.resolve import family_of
from dlmctl.control.base import Control
from dlmctl.control.catalogue import find_plugin
from dlmctl.control.user_files import parse_reference
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.recipe import ControlSpec, Recipe, entry_of, nested_specs, specs_at

_COMBINATION_CLASSES = {"all": "All", "any": "AnyOf"}
# Always written, as in a new recipe, since users of the program change them first.
_ALWAYS_SHOWN = ("samples", "seed")
_MATCHED = "# Matched sets are drawn by `dlmctl matched --recipe FILE`.\n"


def python_code(recipe: Recipe) -> str:
    """A program with the settings of the recipe: it uses control objects, or a ``Recipe`` if those are not enough; for
    matched sets, which are drawn from a file, a comment.

    Raises:
        UserError: a control of the recipe cannot be imported.
    """
    if isinstance(recipe, MatchedRecipe):
        return _MATCHED
    settings = _changed_settings(recipe)
    entries = [entry_of(entry) if isinstance(entry, Control) else entry for entry in recipe.controls]
    specs = specs_at(entries, ("controls",))
    # Only a recipe can have a table of targets, and only a recipe imports controls from the user's own files.
    if "targets" in settings or any(parse_reference(spec.name) for spec in nested_specs(specs)):
        lines = _with_recipe({"model": recipe.model, **settings, **({"controls": entries} if entries else {})})
    else:
        lines = _with_controls(recipe.model, specs, settings)
    return "\n".join([*lines, "    print(sample.text, sample.passed)", ""])


def _changed_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings other than model and controls that differ from their defaults."""
    settings = recipe.model_dump(mode="json", exclude_unset=True, exclude={"controls", "model", "description"})
    # A validated recipe has the settings of its preset filled in.
    for section, preset in settings_of(recipe.preset, family_of(recipe.model))._asdict().items():
        preset_values, values = preset.model_dump(mode="json"), settings.pop(section, {})
        if changed := {name: value for name, value in values.items() if value != preset_values[name]}:
            settings[section] = changed
    defaults = {name: field.get_default(call_default_factory=True) for name, field in Recipe.model_fields.items()}
    return {name: value for name, value in settings.items() if name in _ALWAYS_SHOWN or value != defaults[name]}


def _with_recipe(settings: Mapping[str, Any]) -> list[str]:
    arguments = [f"    {name}={value!r}," for name, value in settings.items()]
    return ["import dlmctl", "", "recipe = dlmctl.Recipe(", *arguments, ")", "for sample in dlmctl.run(recipe):"]


def _with_controls(model: str, specs: list[ControlSpec], settings: Mapping[str, Any]) -> list[str]:
    imports: dict[str, set[str]] = {}
    parts = [_expression(spec, imports) for spec in specs]
    arguments = ["control"] if parts else []
    arguments += [f"{name}={value!r}" for name, value in settings.items()]
    lines = ["import dlmctl", *(f"from {name} import {', '.join(sorted(imports[name]))}" for name in sorted(imports))]
    lines += ["", f"model = dlmctl.load({model!r})", *([f"control = {' & '.join(parts)}"] if parts else [])]
    return [*lines, f"for sample in model.generate({', '.join(arguments)}):"]


def _expression(spec: ControlSpec, imports: dict[str, set[str]]) -> str:
    """A control as a Python expression; adds the names that it needs to ``imports``, by module."""
    weight = "" if spec.weight == 1 else f"{spec.weight!r} * "
    parts = [_expression(part, imports) for part in spec.parts]
    if spec.name == "not":
        control = f"~{parts[0]}"
    elif spec.name in _COMBINATION_CLASSES:
        class_name = _COMBINATION_CLASSES[spec.name]
        imports.setdefault("dlmctl", set()).add(class_name)
        control = f"{class_name}([{', '.join(parts)}])"
    else:
        plugin = find_plugin(spec.name)
        imports.setdefault(plugin.module, set()).add(plugin.attribute)
        control = _constructor_call(plugin.attribute, spec.params)
    return f"({weight}{control})" if weight else control


def _constructor_call(name: str, sets: list[dict[str, Any]]) -> str:
    arguments = [_arguments(params) for params in sets]
    if len(arguments) == 1:
        return f"{name}({arguments[0]})"
    return f"{name}.each([{', '.join(f'{name}.Params({params})' for params in arguments)}])"


def _arguments(params: Mapping[str, Any]) -> str:
    """Parameters as arguments of a call; a name such as ``customer rating`` cannot be a keyword."""
    keywords = {key: value for key, value in params.items() if key.isidentifier() and not iskeyword(key)}
    others = {key: value for key, value in params.items() if key not in keywords}
    arguments = [f"{key}={value!r}" for key, value in keywords.items()]
    return ", ".join([*arguments, *([f"**{others!r}"] if others else [])])
