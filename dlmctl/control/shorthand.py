"""Parameters without their names: in their order, as ``Length(8)`` and ``- length: 8`` have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

PLAIN = (str, int, float, bool)


def by_name(kind: type[BaseModel], first: Sequence[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name, those of ``first`` in the order of the fields of ``kind``.

    Raises:
        TypeError: there are more than fields, or one is named as well, as of any call in Python.
    """
    names = list(kind.model_fields)
    if len(first) > len(names):
        raise TypeError(f"{kind.__name__} takes at most {len(names)} parameters, not {len(first)}")
    given = dict(zip(names, first, strict=False))
    if twice := sorted(given.keys() & params.keys()):
        raise TypeError(f"{kind.__name__} has {twice[0]!r} twice: by its place and by its name")
    return {**given, **params}


def is_short(value: Any) -> bool:
    """Whether a recipe writes a value, or a list of them, where parameters with their names may stand.

    In a list nothing (``~``) is a value, too: one that its parameter refuses, or takes.
    """
    if isinstance(value, list):
        return bool(value) and all(one is None or isinstance(one, PLAIN) for one in value)
    return isinstance(value, PLAIN)


def written_out(kind: type[BaseModel], value: Any) -> list[dict[str, Any]]:
    """The sets of parameters that a short value stands for: the first parameter, by its name.

    A list is one set where that parameter is a list itself, and else a set for each item.
    """
    name, field = next(iter(kind.model_fields.items()), ("value", None))
    annotation = None if field is None else field.annotation
    takes_list = list in (get_origin(annotation), *map(get_origin, get_args(annotation)))
    if takes_list:
        return [{name: value if isinstance(value, list) else [value]}]
    optional = field is None or not field.is_required()
    sets = value if isinstance(value, list) else [value]
    return [{} if one is None and optional else {name: one} for one in sets]
