"""Write a recipe to start from: the requested settings, each with a comment, and the others commented out."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from dlmctl.control.catalogue import Parameter, find_plugin, in_yaml
from dlmctl.errors import RecipeError
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.recipe import COMBINATIONS, Recipe
from dlmctl.recipe.schema import recipe_schema
from dlmctl.recipe.yaml_file import parse

SCHEMA_FILE = "recipe.schema.json"
WIDTH = 100
# Settings that a new recipe always shows, and those that it shows commented out; `dlmctl recipe show` lists the rest.
SHOWN = ("model", "samples", "seed")
COMMENTED_OUT = ("preset", "candidates", "rank_by", "until", "batch_size", "device")


def read_entry(text: str) -> dict[str, Any]:
    """An entry under ``controls`` as written on a command line; a name such as ``pos`` is replaced by its example.

    Raises:
        RecipeError: it is neither a name nor a mapping of one, or the control has no valid example.
    """
    value, _ = parse(text, "--control")
    if not isinstance(value, str):
        if isinstance(value, dict):
            return value
        what = f"a control is a name or `name: {{parameters}}`, not {text!r}."
        raise RecipeError(what, where="--control", remedy="E.g. 'length: {words: 12}'.")
    example = find_plugin(value).example
    if example is None:
        remedy = f"Write its parameters: `dlmctl controls show {value}`."
        raise RecipeError(f"{value!r} has no example.", where="--control", remedy=remedy)
    return {value: example}


def starter(settings: dict[str, Any], file: str, schema: str | None) -> str:
    """A commented recipe as YAML.

    Args:
        settings: the settings of the recipe that are not defaults.
        file: the name of the recipe file, for the comment on how to run it.
        schema: the path of its JSON schema, for editors with the YAML language server; None for none.

    Raises:
        RecipeError: the settings do not validate.
    """
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    recipe, _ = read_recipe(text, "the new recipe")
    lines = [] if schema is None else [f"# yaml-language-server: $schema={schema}"]
    lines += [f"# dlmctl generate --recipe {file}", ""]
    description = settings.get("description")
    lines += [f"description: {in_yaml(description)}", ""] if description else []
    for name in dict.fromkeys([*SHOWN, *(key for key in settings if key not in ("controls", "description"))]):
        lines += [*_comment(Recipe.model_fields[name].description or ""), _line(name, _plain_value(recipe, name))]
    lines += ["", "# What the texts must satisfy. See `dlmctl controls list` and `dlmctl controls show NAME`."]
    if recipe.controls:
        lines += ["controls:", *(line for entry in settings["controls"] for line in _entry(entry))]
    else:
        lines += ["# controls:", "#   - length: {words: 12, tolerance: 2}"]
    lines += ["", "# Settings that have their defaults; `dlmctl recipe show " + file + "` lists all settings."]
    for name in COMMENTED_OUT:
        if name not in settings:
            lines += [
                *_comment(Recipe.model_fields[name].description or ""),
                f"# {_line(name, _plain_value(recipe, name))}",
            ]
    return "\n".join(lines) + "\n"


def write_schema(path: Path) -> None:
    """Write the JSON schema of recipes, with the parameters of every installed control.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n", "utf-8")


def _plain_value(recipe: Recipe, name: str) -> Any:
    """A setting as JSON values."""
    return recipe.model_dump(mode="json")[name]


def _entry(entry: dict[str, Any]) -> list[str]:
    """An entry under ``controls`` with a comment on the control and on each of its parameters."""
    name = next(key for key in entry if key != "weight")
    plugin = None if name in COMBINATIONS else find_plugin(name)
    params = entry[name]
    if plugin is None or not isinstance(params, dict):
        block = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, default_flow_style=None, width=WIDTH)
        return [f"  {line}" for line in block.splitlines()]
    lines = [*_comment(f"{name}: {plugin.summary}", "  "), f"  - {name}:"]
    for parameter in plugin.parameters():
        lines += _parameter(parameter, params)
    declared = {parameter.name for parameter in plugin.parameters()}
    lines += [f"      {_line(key, value)}" for key, value in params.items() if key not in declared]
    return lines + ([f"    weight: {in_yaml(entry['weight'])}"] if "weight" in entry else [])


def _parameter(parameter: Parameter, params: dict[str, Any]) -> list[str]:
    """A parameter with its value, or commented out with its default."""
    if parameter.name in params:
        line = f"      {_line(parameter.name, params[parameter.name])}"
    elif parameter.default not in (None, "null"):
        line = f"      # {parameter.name}: {parameter.default}"
    else:
        return []
    description = f"{parameter.description} ({parameter.type})" if parameter.description else parameter.type
    return [*_comment(description, "      "), line]


def _comment(text: str, indent: str = "") -> list[str]:
    return [f"{indent}# {line}" for line in wrap(text, WIDTH - len(indent), break_on_hyphens=False)]


def _line(name: str, value: Any) -> str:
    return f"{in_yaml(name)}: {in_yaml(value)}"
