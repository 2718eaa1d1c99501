"""What the page's forms are made of, and what they come to: a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from dlmctl.checkpoint.bundled import bundled_names
from dlmctl.checkpoint.resolve import resolve
from dlmctl.checkpoint.user_weights import weights_beside
from dlmctl.control.catalogue import Broken, Plugin, installed
from dlmctl.errors import ModelError, RecipeError
from dlmctl.recipe.as_code import python_code
from dlmctl.recipe.load import find_recipe, load_recipe, validated
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import DEFAULT_MODEL, Recipe
from dlmctl.recipe.yaml_file import SettingsFile, parse

# A page is no place for more; long runs are for the command line.
MOST_SAMPLES, MOST_CANDIDATES, MOST_STEPS = 200, 32, 2000


class FormControl(BaseModel):
    """One control as its form sends it.

    Attributes:
        params: values of parameters whose form knows their type.
        written: parameters written as YAML, by name; ``""`` holds a mapping of names of the user's choice.
        entry: in place of all these, the whole entry as YAML.
        unwanted: whether ``not`` stands before it.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    params: dict[str, Any] = {}
    written: dict[str, str] = {}
    entry: str | None = None
    weight: float = 1.0
    unwanted: bool = False


class Form(BaseModel):
    """The whole form."""

    model_config = ConfigDict(extra="forbid")

    model: str = DEFAULT_MODEL
    samples: int = Field(default=8, ge=1, le=MOST_SAMPLES)
    seed: int = 0
    preset: str = "balanced"
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    candidates: int = Field(default=1, ge=1, le=MOST_CANDIDATES)
    rest: str = Field(default="", description="other settings of the recipe, as YAML")
    controls: list[FormControl] = Field(default=[], max_length=50)


def settings_of(form: Form) -> dict[str, Any]:
    """The settings of a recipe that a form stands for, the defaults left out.

    Raises:
        RecipeError: YAML in it cannot be read.
    """
    rest = _mapping(form.rest, "more settings") if form.rest.strip() else {}
    settings: dict[str, Any] = {"model": form.model, "samples": form.samples, "seed": form.seed}
    if form.preset != "balanced":
        settings["preset"] = form.preset
    if form.controls:
        settings["controls"] = [_entry(control, number) for number, control in enumerate(form.controls, start=1)]
    if form.candidates > 1:
        settings["candidates"] = form.candidates
    for name, value in rest.items():
        if name in Form.model_fields:
            raise RecipeError(f"`{name}` has a field of its own.", where="more settings", remedy="Set it there.")
        settings[name] = value
    if form.steps is not None:
        given = settings.get("sampler", {})
        settings["sampler"] = {**(given if isinstance(given, dict) else {}), "steps": form.steps}
    return settings


def _entry(control: FormControl, number: int) -> dict[str, Any]:
    where = f"control {number}"
    if control.entry is not None:
        entry = _mapping(control.entry, where)
    else:
        written = {name: text for name, text in control.written.items() if text.strip()}
        params = dict(control.params)
        params |= {name: parse(text, f"{where}, {name}")[0] for name, text in written.items() if name}
        entry = {control.name: {**params, **(_mapping(written[""], where) if "" in written else {})}}
    if control.unwanted:
        entry = {"not": entry}
    return entry if control.weight == 1 else {**entry, "weight": control.weight}


def _mapping(text: str, where: str) -> dict[str, Any]:
    value, _ = parse(text, where)
    if not isinstance(value, dict):
        raise RecipeError("write `name: value` pairs.", where=where)
    return value


def recipe_of(form: Form) -> tuple[Recipe, SettingsFile]:
    """The recipe of a form.

    Raises:
        RecipeError: it does not validate.
    """
    return validated(settings_of(form))


def written(form: Form) -> dict[str, str]:
    """The recipe of a form as ``yaml`` and as ``python``.

    Raises:
        RecipeError: it does not validate.
    """
    settings = settings_of(form)
    recipe, _ = validated(settings)
    return {"yaml": _in_yaml(settings, 88), "python": python_code(recipe)}


def _in_yaml(settings: Mapping[str, Any], width: int) -> str:
    """Settings as YAML, each on a line of its own even where all are plain values, which would stand in one line."""
    lines = []
    for name, value in settings.items():
        flow = None if isinstance(value, dict | list) else False
        lines.append(
            yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow)
        )
    return "".join(lines)


def offered() -> dict[str, Any]:
    """What the page offers: models, recipes to start from, and controls with the schemas of their parameters.

    What was installed when it was first asked; only weights trained since are seen.
    """
    plugins, broken = _installed()
    faults = [{"name": one.name, "origin": one.origin, "fault": one.fault} for one in broken]
    return {
        "default": DEFAULT_MODEL,
        "models": {name: _trained(name, plugins) for name in bundled_names("models")},
        "recipes": _recipes(),
        "controls": [
            {
                "name": plugin.name,
                "summary": plugin.summary.replace("``", ""),
                "origin": plugin.origin,
                "trainable": plugin.trainable,
                "schema": plugin.schema(),
                "example": plugin.example,
            }
            for plugin in plugins
        ],
        "broken": faults,
    }


@cache
def _installed() -> tuple[list[Plugin], list[Broken]]:
    """The installed controls, which take long to import and to describe, and stay the same while the server runs."""
    return installed()


def _trained(model: str, plugins: Sequence[Plugin]) -> list[str]:
    """The trainable controls whose weights lie beside a model."""
    try:
        folder: Path = resolve(model)
    except ModelError:
        return []
    return [one.name for one in plugins if one.trainable and any(weights_beside(folder, one.name))]


@cache
def _recipes() -> dict[str, Mapping[str, Any]]:
    """The bundled recipes whose settings the forms can hold, by name; they stay the same as well."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in bundled_names("recipes"):
        recipe, _ = load_recipe(name)
        given, _ = parse(find_recipe(name).read_text("utf-8"), name)
        if isinstance(recipe, MatchedRecipe):
            continue
        rest = {key: value for key, value in given.items() if key not in Form.model_fields and key != "description"}
        found[name] = {
            "description": recipe.description,
            "model": recipe.model,
            "preset": recipe.preset,
            "candidates": min(recipe.candidates, MOST_CANDIDATES),
            "controls": given.get("controls", []),
            "rest": _in_yaml(rest, 60),
        }
    return found
