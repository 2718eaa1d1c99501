"""Settings of earlier versions, renamed or gone: recipes that use them still load, with one warning each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dlmctl.errors import readable
from dlmctl.recipe.yaml_file import Place, SettingsFile

# A setting by its place, and its values by their old names.
VALUES: Mapping[Place, Mapping[str, str]] = {
    ("guidance", "method"): {"words": "logits"},  # 0.1
}

# Settings that there are no more, and what holds in their place.
GONE: Mapping[Place, str] = {
    ("guidance", "schedule"): "the scale is the same at all times between `since` and `until`",  # 0.1
}

log = logging.getLogger("dlmctl")


def renew(settings: dict[str, Any], file: SettingsFile) -> None:
    """Replace old values in settings as read, and leave out what is gone."""
    for place, renamed in VALUES.items():
        outer, key = _around(settings, place), place[-1]
        value = outer.get(key) if outer is not None else None
        if outer is not None and isinstance(value, str) and value in renamed:
            _warn(file, place, f"{'.'.join(map(str, place))}: `{value}` is now called `{renamed[value]}`.")
            outer[key] = renamed[value]
    for place, instead in GONE.items():
        outer = _around(settings, place)
        if outer is not None and place[-1] in outer:
            _warn(file, place, f"`{'.'.join(map(str, place))}` is gone and changes nothing: {instead}.")
            del outer[place[-1]]


def _around(settings: dict[str, Any], place: Place) -> dict[Any, Any] | None:
    """The mapping that holds the last step of ``place``, if there is one."""
    inner: Any = settings
    for step in place[:-1]:
        inner = inner.get(step) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else None


def _warn(file: SettingsFile, place: Place, what: str) -> None:
    log.warning("dlmctl: %s", readable(f"{file.where(place)}: {what}"))
