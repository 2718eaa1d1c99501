"""A recipe to start from: what is asked for, with a comment on every setting and, behind #, those left as they are."""

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
# Settings that a new recipe shows; of the rest `dlmctl recipe show` tells.
SHOWN = ("model", "samples", "seed")
LEFT = ("preset", "candidates", "rank_by", "until", "batch_size", "device")


def read_entry(text: str) -> dict[str, Any]:
    """An entry under ``controls`` as written on a command line: ``pos`` stands for its example.

    Raises:
        RecipeError: it is neither a name nor a mapping of one, or the control gives no valid example.
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
        raise RecipeError(f"the author of {value!r} gives no examples.", where="--control", remedy=remedy)
    return {value: example}


def starter(settings: dict[str, Any], file: str, schema: str | None) -> str:
    """A commented recipe as YAML.

    Args:
        settings: those of a recipe that are not to be the defaults.
        file: what the recipe will be named, for the comment on how to run it.
        schema: where its JSON schema lies, as editors with the YAML language server are told; None for none.

    Raises:
        RecipeError: the settings do not validate.
    """
    given = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    recipe, _ = read_recipe(given, "the new recipe")
    lines = [] if schema is None else [f"# yaml-language-server: $schema={schema}"]
    lines += [f"# dlmctl generate --recipe {file}", ""]
    described = settings.get("description")
    lines += [f"description: {in_yaml(described)}", ""] if described else []
    for name in dict.fromkeys([*SHOWN, *(key for key in settings if key not in ("controls", "description"))]):
        lines += [*_comment(Recipe.model_fields[name].description or ""), _line(name, _shown(recipe, name))]
    lines += ["", "# What the texts must satisfy. `dlmctl controls list` names all, `dlmctl controls show NAME` one."]
    if recipe.controls:
        lines += ["controls:", *(line for entry in settings["controls"] for line in _entry(entry))]
    else:
        lines += ["# controls:", "#   - length: {words: 12, tolerance: 2}"]
    lines += ["", "# Settings that have their defaults; `dlmctl recipe show " + file + "` writes out all others."]
    for name in LEFT:
        if name not in settings:
            lines += [
                *_comment(Recipe.model_fields[name].description or ""),
                f"# {_line(name, _shown(recipe, name))}",
            ]
    return "\n".join(lines) + "\n"


def write_schema(path: Path) -> None:
    """Write the JSON schema of recipes, with the parameters of every control that is installed now.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n", "utf-8")


def _shown(recipe: Recipe, name: str) -> Any:
    """A setting as plain values."""
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
    for one in plugin.parameters():
        lines += _parameter(one, params)
    taken = {one.name for one in plugin.parameters()}
    lines += [f"      {_line(key, value)}" for key, value in params.items() if key not in taken]
    return lines + ([f"    weight: {in_yaml(entry['weight'])}"] if "weight" in entry else [])


def _parameter(one: Parameter, params: dict[str, Any]) -> list[str]:
    """One parameter: as given, or behind # with its default."""
    if one.name in params:
        shown = f"      {_line(one.name, params[one.name])}"
    elif one.default not in (None, "null"):
        shown = f"      # {one.name}: {one.default}"
    else:
        return []
    return [*_comment(f"{one.description} ({one.type})" if one.description else one.type, "      "), shown]


def _comment(text: str, indent: str = "") -> list[str]:
    return [f"{indent}# {line}" for line in wrap(text, WIDTH - len(indent), break_on_hyphens=False)]


def _line(name: str, value: Any) -> str:
    return f"{in_yaml(name)}: {in_yaml(value)}"
