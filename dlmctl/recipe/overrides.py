"""Settings that a command line gives as text: single values that override those of a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dlmctl.errors import RecipeError
from dlmctl.recipe.yaml_file import MOST_DEPTH, NOT_YAML, Place, SettingsFile, parse, too_deep


def parse_option(text: str, option: str) -> tuple[Any, SettingsFile]:
    """``parse`` for the text of an option, which errors name.

    Raises:
        RecipeError: as ``parse``.
    """
    try:
        return parse(text, "value")
    except RecipeError as error:
        why = " is not a YAML value." if error.what.startswith(NOT_YAML) else f": {error.what}"
        raise RecipeError(f"{text!r}{why}", where=option, remedy=error.remedy) from None


def override(settings: dict[str, Any], setting: str, file: SettingsFile | None = None) -> Place:
    """Set one ``key=value`` (key dotted, value YAML) in ``settings``, note it in ``file``, and return its place.

    Raises:
        RecipeError: it is not ``key=value``, or there is no such place.
    """
    option = SettingsFile.option if file is None else file.option
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"{setting!r} is not key=value.", where=option, remedy="For example sampler.steps=20.")
    # @ names a file of sources, but plain YAML text cannot begin with it.
    written = json.dumps(text) if key == "source" and text.startswith("@") else text
    option = f"{option} {key}"
    value, origin = parse_option(written, option)
    *parents, last = key.split(".")
    if len(parents) >= MOST_DEPTH:
        raise RecipeError(too_deep() + ".", where=option)
    inner: Any = settings
    place: list[str | int] = []
    for parent in parents:
        place.append(_step(inner, parent, place, option))
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else inner[place[-1]]
        if not isinstance(inner, dict | list):
            raise RecipeError(f"{parent!r} is a value, not settings.", where=option, remedy=_set_whole(place, option))
    place.append(_step(inner, last, place, option))
    inner[place[-1]] = value
    if file is not None:
        file.overridden.append(tuple(place))
        file.spelled.update({(*place, *inner_place): written for inner_place, written in origin.spelled.items()})
    return tuple(place)


def overlay(settings: dict[str, Any], overrides: Sequence[str], file: SettingsFile) -> None:
    """Set each of ``overrides`` in ``settings``; see ``override``."""
    for setting in overrides:
        override(settings, setting, file)


def _step(inner: dict[str, Any] | list[Any], step: str, place: Sequence[str | int], option: str) -> str | int:
    """The key or index for ``step`` in ``inner``, which is at ``place``; messages name the ``option``."""
    if isinstance(inner, dict):
        return step
    if step.isdecimal() and len(step) < 10 and int(step) < len(inner):
        return int(step)
    what = f"{place[-1]!r} is a list of {len(inner)}, numbered from 0, and has no item {step!r}."
    raise RecipeError(what, where=option, remedy=None if step.isdecimal() else _set_whole(place, option))


def _set_whole(place: Sequence[str | int], option: str) -> str:
    return f"Set all of it: {option.partition(' ')[0]} {'.'.join(map(str, place))}=..."
