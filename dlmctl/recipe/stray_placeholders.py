"""Where placeholders are allowed: in controls, label, source and prompt of a recipe with targets."""

from __future__ import annotations

from typing import Any

from dlmctl.control.base import Control
from dlmctl.errors import readable
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.placeholders import placeholders_in, quote_placeholders
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.yaml_file import SettingsFile

PLACEHOLDER_SETTINGS = ("controls", "label", "source", "prompt")
ITEM_BY_ITEM = "Give a control a list of parameter sets, one for each item: docs/cookbook.md, Word pairs of your own."


def with_placeholders(settings: dict[str, Any], file: SettingsFile) -> dict[str, Any]:
    """The settings of a recipe with targets as read, its placeholders as text; see ``quote_placeholders``.

    Raises:
        RecipeError: it is a recipe of matched sets, or a placeholder is where none is allowed.
    """
    if "conditions" in settings:
        raise file.error(("targets",), "matched sets take no targets.", ITEM_BY_ITEM)
    quoted_settings = dict(settings)
    for name in PLACEHOLDER_SETTINGS[1:]:
        if name in settings:
            quoted_settings[name] = quote_placeholders(settings[name])
    if isinstance(settings.get("controls"), list):
        quoted_settings["controls"] = [_entry(entry) for entry in settings["controls"]]
    others = {
        key: quote_placeholders(value)
        for key, value in settings.items()
        if key not in (*PLACEHOLDER_SETTINGS, "targets", "description")
    }
    for column, place in placeholders_in(others):
        what = f"{'.'.join(map(str, place))}: the placeholder {{{readable(column, 60)}}} is not allowed here."
        raise file.error(place, what, "Placeholders are allowed in controls, label, source and prompt.")
    return quoted_settings


def _entry(entry: Any) -> Any:
    """An entry of the list of controls with its values quoted; its name and parameter names are not placeholders."""
    if isinstance(entry, Control) or not isinstance(entry, dict):
        return entry
    return {name: _parameters(name, value) for name, value in entry.items()}


def _parameters(name: str, value: Any) -> Any:
    if name in ("all", "any", "not"):
        return [_entry(item) for item in value] if isinstance(value, list) else _entry(value)
    if isinstance(value, list):
        return [_parameters(name, item) for item in value]
    return {key: quote_placeholders(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def refuse_stray(recipe: Recipe, file: SettingsFile) -> None:
    """Refuse placeholders in a recipe without targets.

    Raises:
        RecipeError: there are some.
    """
    if recipe.targets is not None:
        return
    is_matched = isinstance(recipe, MatchedRecipe)
    values = {name: getattr(recipe, name) for name in (*PLACEHOLDER_SETTINGS, *(("conditions",) if is_matched else ()))}
    for column, place in placeholders_in(values):
        what = f"{{{readable(column, 60)}}} is a placeholder, but the recipe has no targets to fill it from."
        remedy = "Pass a table (--targets FILE.csv, in Python targets=...), or name it under `targets:`."
        if is_matched:
            remedy = f"Matched sets take none. {ITEM_BY_ITEM}"
        raise file.error(place, what, remedy)
