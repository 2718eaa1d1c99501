"""Settings passed from Python as an object or a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dlmctl.errors import RecipeError, UserError, did_you_mean
from dlmctl.recipe.explain import explain, parsed
from dlmctl.recipe.readable import PythonSettings

S = TypeVar("S", bound=BaseModel)
SettingsMapping = Mapping[str, Any] | None


def settings_from(value: S | SettingsMapping, base: S, name: str) -> S:
    """Settings of the type of ``base``: ``value`` if it is one, ``base`` for None, or ``base`` updated by a mapping.

    Raises:
        UserError: they do not validate; the message names the setting.
    """
    settings_type = type(base)
    if value is None:
        return base
    if isinstance(value, settings_type):
        return value
    if not isinstance(value, Mapping):
        what = f"must be {settings_type.__name__} or a dict of its settings, not {value!r}."
        raise UserError(what, where=name, remedy=f"Its settings are {', '.join(settings_type.model_fields)}.")
    for key in value:
        if key not in settings_type.model_fields:
            remedy = did_you_mean(str(key), list(settings_type.model_fields))
            raise RecipeError(f"unknown key {key!r}.", where=f"{name}.{key}", remedy=remedy)
    settings = {**base.model_dump(), **value}
    try:
        return parsed(settings_type, settings)
    except ValidationError as error:
        raise explain(error, settings_type, (name,), PythonSettings(name), settings) from None
