"""Where placeholders may stand: in controls, label, source and prompt of a recipe that has targets."""

from __future__ import annotations

from typing import Any

from dlmctl.control.base import Control
from dlmctl.errors import readable
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.placeholders import placeholders_in, quoted
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.yaml_file import SettingsFile

FILLED = ("controls", "label", "source", "prompt")


def with_placeholders(settings: dict[str, Any], file: SettingsFile) -> dict[str, Any]:
    """Settings as read of a recipe with targets, its placeholders as texts; see ``placeholders.quoted``.

    Raises:
        RecipeError: it is a recipe of matched sets, or a placeholder stands where none can.
    """
    if "conditions" in settings:
        what, remedy = "this is a recipe of matched sets, which takes no targets.", "Run it with `dlmctl matched`."
        raise file.error(("conditions",), what, remedy)
    made = dict(settings)
    for name in FILLED[1:]:
        if name in settings:
            made[name] = quoted(settings[name])
    if isinstance(settings.get("controls"), list):
        made["controls"] = [_entry(entry) for entry in settings["controls"]]
    others = {key: quoted(value) for key, value in settings.items() if key not in (*FILLED, "targets", "description")}
    for column, place in placeholders_in(others):
        what = f"{'.'.join(map(str, place))}: the placeholder {{{readable(column, 60)}}} cannot stand here."
        raise file.error(place, what, "Placeholders stand in controls, label, source and prompt.")
    return made


def _entry(entry: Any) -> Any:
    """An entry of the list of controls, whose own name and parameters are no placeholders."""
    if isinstance(entry, Control) or not isinstance(entry, dict):
        return entry
    return {name: _parameters(name, value) for name, value in entry.items()}


def _parameters(name: str, value: Any) -> Any:
    if name in ("all", "any", "not"):
        return [_entry(one) for one in value] if isinstance(value, list) else _entry(value)
    if isinstance(value, list):
        return [_parameters(name, one) for one in value]
    return {key: quoted(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def refuse_stray(recipe: Recipe, file: SettingsFile) -> None:
    """Refuse placeholders that nothing fills.

    Raises:
        RecipeError: there are some, and no targets.
    """
    if recipe.targets is not None or isinstance(recipe, MatchedRecipe):
        return
    values = {name: getattr(recipe, name) for name in FILLED}
    for column, place in placeholders_in(values):
        what = f"{{{readable(column, 60)}}} is a placeholder, and the recipe has no targets to fill it from."
        raise file.error(place, what, "Give a table with --targets FILE.csv, or name it under `targets:`.")
