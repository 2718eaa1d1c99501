"""What a command line adds to a recipe, and files that a recipe names, which lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlmctl.control.user_files import beside
from dlmctl.errors import RecipeError
from dlmctl.recipe.yaml_file import SettingsFile, parse

STANDARD_INPUT = "-"


def add_control(settings: dict[str, Any], entry: str, file: SettingsFile) -> None:
    """Put an entry, written as YAML, behind the controls of a recipe as read.

    Raises:
        RecipeError: it is no entry, or the recipe's controls are no list.
    """
    try:
        value, given = parse(entry, "value")
    except RecipeError as error:
        raise RecipeError(f"{entry!r} is not YAML.", where="--control", remedy=error.remedy) from None
    if not isinstance(value, dict):
        what = f"a control is written as in a recipe, not {entry!r}."
        raise RecipeError(what, where="--control", remedy="For example 'length: {words: 14}'.")
    controls = settings.setdefault("controls", [])
    if not isinstance(controls, list):
        what = "controls should be a list."
        if ("controls",) in {place[:1] for place in file.overridden}:
            what = "--set cannot reach the controls of --control, which come behind those that it changes."
            raise file.error(("controls",), what, "Say it in --control itself.")
        raise file.error(("controls",), what)
    place = ("controls", len(controls))
    controls.append(value)
    file.overridden.append(place)
    file.spelled.update({(*place, *inner): written for inner, written in given.spelled.items()})


def anchored(settings: Any, folder: Path) -> Any:
    """Settings as read, with the files that they name seen from ``folder``: targets, and controls as file.py:name."""
    if not isinstance(settings, dict):
        return settings
    made = dict(settings)
    targets = settings.get("targets")
    if isinstance(targets, str) and targets != STANDARD_INPUT:
        made["targets"] = str(folder / targets)
    for name in ("controls", "conditions"):
        if name in settings:
            made[name] = _entries(settings[name], folder)
    return made


def _entries(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_entries(one, folder) for one in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, inner in value.items():
        name = beside(key, folder) if isinstance(key, str) else key
        found[name] = _function(inner, folder) if key == "check" else _entries(inner, folder)
    return found


def _function(value: Any, folder: Path) -> Any:
    """What stands under ``check``, whose function is named as file.py:name."""
    if isinstance(value, str):
        return beside(value, folder)
    if isinstance(value, list):
        return [_function(one, folder) for one in value]
    return {key: _function(inner, folder) for key, inner in value.items()} if isinstance(value, dict) else value
