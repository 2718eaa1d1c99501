"""Settings that a caller in Python gives as an object or as a dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dlmctl.errors import RecipeError, UserError, first_fault, nearest

S = TypeVar("S", bound=BaseModel)
Given = Mapping[str, Any] | None


def settings_from(given: S | Given, base: S, name: str) -> S:
    """Settings of the kind of ``base``: as given, ``base`` where nothing is, or with a mapping laid over it.

    Raises:
        UserError: they do not validate; the message names the setting.
    """
    kind = type(base)
    if given is None:
        return base
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        what = f"must be {kind.__name__} or a dict of its settings, not {given!r}."
        raise UserError(what, where=name, remedy=f"Its settings are {', '.join(kind.model_fields)}.")
    for key in given:
        if key not in kind.model_fields:
            remedy = nearest(str(key), list(kind.model_fields))
            raise RecipeError(f"unknown key {key!r}.", where=f"{name}.{key}", remedy=remedy)
    try:
        return kind.model_validate({**base.model_dump(), **given})
    except ValidationError as error:
        raise RecipeError(first_fault(error), where=name) from None
