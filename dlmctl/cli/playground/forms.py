"""The data for the page's forms, and the conversion of a filled-in form to a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from dlmctl.checkpoint.bundled import bundled_names
from dlmctl.checkpoint.resolve import resolve
from dlmctl.checkpoint.user_weights import available_weights
from dlmctl.control.catalogue import Broken, Plugin, installed
from dlmctl.errors import ModelError, RecipeError
from dlmctl.recipe.as_code import python_code
from dlmctl.recipe.load import find_recipe, load_recipe, validated
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import DEFAULT_MODEL, Recipe
from dlmctl.recipe.yaml_file import SettingsFile, parse

# Longer runs belong on the command line.
MAX_SAMPLES, MAX_CANDIDATES, MAX_STEPS = 200, 32, 2000


class FormControl(BaseModel):
    """One control as sent by its form.

    Attributes:
        params: values of parameters whose type the form knows.
        written: parameters written as YAML, by name; ``""`` holds a mapping with names that the user chose.
        entry: the whole entry as YAML, in place of all other fields.
        unwanted: whether the control is negated with ``not``.
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
    samples: int = Field(default=8, ge=1, le=MAX_SAMPLES)
    seed: int = 0
    preset: str = "balanced"
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    candidates: int = Field(default=1, ge=1, le=MAX_CANDIDATES)
    rest: str = Field(default="", description="other settings of the recipe, as YAML")
    controls: list[FormControl] = Field(default=[], max_length=50)


def settings_of(form: Form) -> dict[str, Any]:
    """The recipe settings of a form, without defaults.

    Raises:
        RecipeError: YAML in the form cannot be read.
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
            raise RecipeError(f"`{name}` has its own field.", where="more settings", remedy="Set it there.")
        settings[name] = value
    if form.steps is not None:
        sampler = settings.get("sampler", {})
        settings["sampler"] = {**(sampler if isinstance(sampler, dict) else {}), "steps": form.steps}
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
    """The recipe of a form, and the source of its settings.

    Raises:
        RecipeError: the recipe is invalid.
    """
    return validated(settings_of(form))


def recipe_code(form: Form) -> dict[str, str]:
    """The recipe of a form as ``yaml`` and as ``python``.

    Raises:
        RecipeError: the recipe is invalid.
    """
    settings = settings_of(form)
    recipe, _ = validated(settings)
    return {"yaml": _yaml_lines(settings, 88), "python": python_code(recipe)}


def _yaml_lines(settings: Mapping[str, Any], width: int) -> str:
    """Settings as YAML, each on its own line, even where all are plain values, which PyYAML would put in one line."""
    lines = []
    for name, value in settings.items():
        flow = None if isinstance(value, dict | list) else False
        lines.append(
            yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow)
        )
    return "".join(lines)


def page_data() -> dict[str, Any]:
    """The choices of the page: models, recipes to start from, and controls with the schemas of their parameters.

    Controls and recipes are those of the first call; newly trained weights are seen by later calls too.
    """
    plugins, broken = _installed()
    faults = [{"name": control.name, "origin": control.origin, "fault": control.fault} for control in broken]
    return {
        "default": DEFAULT_MODEL,
        "models": {name: _trained_controls(name, plugins) for name in bundled_names("models")},
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
    """The installed controls; cached, as they are slow to import and do not change while the server runs."""
    return installed()


def _trained_controls(model: str, plugins: Sequence[Plugin]) -> list[str]:
    """The trainable controls that have weights for a model."""
    try:
        folder: Path = resolve(model)
    except ModelError:
        return []
    return [plugin.name for plugin in plugins if plugin.trainable and any(available_weights(folder, plugin.name))]


@cache
def _recipes() -> dict[str, Mapping[str, Any]]:
    """The bundled recipes that the forms can represent, by name; cached, as they do not change either."""
    recipes: dict[str, Mapping[str, Any]] = {}
    for name in bundled_names("recipes"):
        recipe, _ = load_recipe(name)
        settings, _ = parse(find_recipe(name).read_text("utf-8"), name)
        if isinstance(recipe, MatchedRecipe):
            continue
        rest = {key: value for key, value in settings.items() if key not in Form.model_fields and key != "description"}
        recipes[name] = {
            "description": recipe.description,
            "model": recipe.model,
            "preset": recipe.preset,
            "candidates": min(recipe.candidates, MAX_CANDIDATES),
            "controls": settings.get("controls", []),
            "rest": _yaml_lines(rest, 60),
        }
    return recipes
