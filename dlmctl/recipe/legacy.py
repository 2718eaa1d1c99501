"""Renamed or removed settings of earlier versions: recipes that use them still load, with one warning each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dlmctl.errors import readable
from dlmctl.recipe.yaml_file import Place, SettingsFile

# Renamed values of settings, old name to new.
RENAMED_VALUES: Mapping[Place, Mapping[str, str]] = {
    ("guidance", "method"): {"words": "logits"},  # 0.1
}

# Removed settings, and what applies instead.
REMOVED: Mapping[Place, str] = {
    ("guidance", "schedule"): "the scale is the same at all times between `since` and `until`",  # 0.1
}

log = logging.getLogger("dlmctl")


def update_legacy(settings: dict[str, Any], file: SettingsFile) -> None:
    """Replace old values in settings as read, and delete removed settings."""
    for place, renamed in RENAMED_VALUES.items():
        outer, key = _parent_of(settings, place), place[-1]
        value = outer.get(key) if outer is not None else None
        if outer is not None and isinstance(value, str) and value in renamed:
            _warn(file, place, f"{'.'.join(map(str, place))}: `{value}` is now called `{renamed[value]}`.")
            outer[key] = renamed[value]
    for place, replacement in REMOVED.items():
        outer = _parent_of(settings, place)
        if outer is not None and place[-1] in outer:
            _warn(file, place, f"`{'.'.join(map(str, place))}` was removed and has no effect: {replacement}.")
            del outer[place[-1]]


def _parent_of(settings: dict[str, Any], place: Place) -> dict[Any, Any] | None:
    """The mapping that contains the last key of ``place``, if there is one."""
    inner: Any = settings
    for step in place[:-1]:
        inner = inner.get(step) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else None


def _warn(file: SettingsFile, place: Place, what: str) -> None:
    log.warning("dlmctl: %s", readable(f"{file.where(place)}: {what}"))
