"""What a command line adds to a recipe, and files that a recipe names, which lie beside it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.control.registry import find_control, offers
from dlmctl.control.user_files import beside, named_in, seen_from
from dlmctl.errors import RecipeError, UserError
from dlmctl.recipe.placeholders import PLACEHOLDER
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
    """Settings as read, with every relative path that they name seen from the recipe's ``folder``.

    Where nothing lies there it stays as it is, seen from the current folder: a name of the hub is no path, nor is that
    of a bundled model.
    """
    if not isinstance(settings, dict):
        return settings
    made = dict(settings)
    for name in ("model", "second_scorer", "targets", "source"):
        if isinstance(value := settings.get(name), str):
            made[name] = _setting(name, value, folder)
    for name in ("controls", "conditions"):
        if name in settings:
            made[name] = _entries(settings[name], folder)
    return made


def _setting(name: str, value: str, folder: Path) -> str:
    if name == "source":  # a file of them, or the one itself
        return "@" + seen_from(folder, value[1:]) if value.startswith("@") else value
    if (name == "targets" and value == STANDARD_INPUT) or (name == "model" and bundled_path("models", value)):
        return value
    return seen_from(folder, value, named=name != "targets")


def _entries(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_entries(one, folder) for one in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, inner in value.items():
        name = beside(key, folder) if isinstance(key, str) else key
        if key == "check":
            found[name] = _function(inner, folder)
        elif paths := _paths_of(name):
            found[name] = _files(inner, paths, folder)
        else:
            found[name] = _entries(inner, folder)
    return found


def _paths_of(name: Any) -> Collection[str]:
    """The parameters of a control that name files or folders, none where there is no such control."""
    if not isinstance(name, str) or not (name in offers() or named_in(name)):
        return ()
    try:
        return tuple(getattr(find_control(name).Params, "reads", ()))
    except UserError:  # said, with its line, when the recipe is checked
        return ()


def _files(value: Any, names: Collection[str], folder: Path) -> Any:
    """The parameters of a control, of which some are paths; one that a table gives stays as it is."""
    if isinstance(value, list):
        return [_files(one, names, folder) for one in value]
    if not isinstance(value, dict):
        return value
    found = dict(value)
    for key in names:
        if isinstance(path := value.get(key), str) and not PLACEHOLDER.match(path):
            found[key] = seen_from(folder, path, named=True)
    return found


def _function(value: Any, folder: Path) -> Any:
    """What stands under ``check``, whose function is named as file.py:name."""
    if isinstance(value, str):
        return beside(value, folder)
    if isinstance(value, list):
        return [_function(one, folder) for one in value]
    return {key: _function(inner, folder) for key, inner in value.items()} if isinstance(value, dict) else value
