"""Controls that a command line adds to a recipe, and paths in a recipe, which are relative to its folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from dlmctl.checkpoint.bundled import bundled_path
from dlmctl.control.registry import find_control, offered_controls
from dlmctl.control.user_files import beside, parse_reference, seen_from
from dlmctl.errors import RecipeError, UserError
from dlmctl.recipe.overrides import parse_option
from dlmctl.recipe.placeholders import PLACEHOLDER
from dlmctl.recipe.yaml_file import SettingsFile

STANDARD_INPUT = "-"


def add_control(settings: dict[str, Any], entry: str, file: SettingsFile) -> None:
    """Append an entry, written as YAML, to the controls of a recipe as read.

    Raises:
        RecipeError: it is not a valid entry, or the recipe's controls are not a list.
    """
    value, origin = parse_option(entry, "--control")
    if not isinstance(value, dict):
        what = f"a control is written as in a recipe, not {entry!r}."
        raise RecipeError(what, where="--control", remedy="For example 'length: {words: 14}'.")
    controls = settings.setdefault("controls", [])
    if not isinstance(controls, list):
        what = "controls should be a list."
        if ("controls",) in {place[:1] for place in file.overridden}:
            what = "--set cannot change the controls of --control, which are added after it."
            raise file.error(("controls",), what, "Write the change in --control itself.")
        raise file.error(("controls",), what)
    place = ("controls", len(controls))
    controls.append(value)
    file.overridden.append(place)
    file.spelled.update({(*place, *inner): written for inner, written in origin.spelled.items()})


def anchored(settings: Any, folder: Path) -> Any:
    """Settings as read, with every relative path in them resolved against the recipe's ``folder``.

    Names that do not exist there are left unchanged, relative to the current folder: they may be names of the hub or of
    bundled models.
    """
    if not isinstance(settings, dict):
        return settings
    anchored_settings = dict(settings)
    for name in ("model", "scorer", "second_scorer", "targets", "source"):
        if isinstance(value := settings.get(name), str):
            anchored_settings[name] = _setting(name, value, folder)
    for name in ("controls", "conditions"):
        if name in settings:
            anchored_settings[name] = _entries(settings[name], folder)
    return anchored_settings


def _setting(name: str, value: str, folder: Path) -> str:
    if name == "source":  # a file of sources, or a source itself
        return "@" + seen_from(folder, value[1:]) if value.startswith("@") else value
    if name in ("model", "scorer") and bundled_path("models", value):
        return value
    if name == "targets" and value == STANDARD_INPUT:
        return value
    return seen_from(folder, value, named=name != "targets")


def _entries(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_entries(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    entries = {}
    for key, inner in value.items():
        name = beside(key, folder) if isinstance(key, str) else key
        if key == "check":
            entries[name] = _function(inner, folder)
        elif path_params := _path_params_of(name):
            entries[name] = _with_paths(inner, path_params, folder)
        else:
            entries[name] = _entries(inner, folder)
    return entries


def _path_params_of(name: Any) -> Collection[str]:
    """The parameters of a control that are paths; none if there is no such control."""
    if not isinstance(name, str) or not (name in offered_controls() or parse_reference(name)):
        return ()
    try:
        return tuple(getattr(find_control(name).Params, "reads", ()))
    except UserError:  # reported, with its line, when the recipe is checked
        return ()


def _with_paths(value: Any, path_params: Collection[str], folder: Path) -> Any:
    """The parameters of a control, with its path parameters resolved; paths from a table are left unchanged."""
    if isinstance(value, list):
        return [_with_paths(item, path_params, folder) for item in value]
    if not isinstance(value, dict):
        return value
    params = dict(value)
    for key in path_params:
        if isinstance(path := value.get(key), str) and not PLACEHOLDER.match(path):
            params[key] = seen_from(folder, path, named=True)
    return params


def _function(value: Any, folder: Path) -> Any:
    """The value under ``check``, whose function is named as file.py:name."""
    if isinstance(value, str):
        return beside(value, folder)
    if isinstance(value, list):
        return [_function(item, folder) for item in value]
    return {key: _function(inner, folder) for key, inner in value.items()} if isinstance(value, dict) else value
