"""Parameters without their names, in order, as in ``Length(8)`` and ``- length: 8``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from dlmctl.control.warn_once import warn_once
from dlmctl.errors import readable

PLAIN = (str, int, float, bool)


def params_by_name(kind: type[BaseModel], args: Sequence[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by name; the positional ``args`` follow the order of the fields of ``kind``.

    Raises:
        TypeError: there are more arguments than fields, or one is passed by keyword as well, as in any Python call.
    """
    names = list(kind.model_fields)
    if len(args) > len(names):
        raise TypeError(f"{kind.__name__} takes at most {len(names)} parameters, not {len(args)}")
    positional = dict(zip(names, args, strict=False))
    if twice := sorted(positional.keys() & params.keys()):
        raise TypeError(f"{kind.__name__} has {twice[0]!r} twice: by position and by name")
    return {**positional, **params}


def is_short(value: Any) -> bool:
    """Whether a recipe has a plain value, or a list of them, in place of named parameters; in Python a function, too.

    In a list a null (``~``) counts as a value: the parameter may accept or refuse it.
    """
    if isinstance(value, list):
        return bool(value) and all(item is None or _is_plain(item) for item in value)
    return _is_plain(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or callable(value)


def written_out(kind: type[BaseModel], value: Any) -> list[dict[str, Any]]:
    """The sets of parameters that a short value stands for: the first parameter, by its name.

    A list is one set if that parameter is itself a list, and otherwise one set for each item.
    """
    name, field = next(iter(kind.model_fields.items()), ("value", None))
    annotation = None if field is None else field.annotation
    takes_list = list in (get_origin(annotation), *map(get_origin, get_args(annotation)))
    if takes_list:
        if isinstance(value, str):
            _warn_of_separators(kind, name, value)
        return [{name: value if isinstance(value, list) else [value]}]
    optional = field is None or not field.is_required()
    sets = value if isinstance(value, list) else [value]
    return [{} if item is None and optional else {name: item} for item in sets]


def warn_of_cell(kind: type[BaseModel], name: str, column: str, cell: str) -> None:
    """Warn if a cell with commas or semicolons is a single item of the list of a parameter, as in
    ``contains: "{column}"``."""
    if _is_one_of_several(kind, name, cell):
        shown = readable(column, 60)
        warn_once(
            f"column {shown!r}: a cell with commas or semicolons is taken as one phrase, with its punctuation; "
            f'for several write `{name}: "{{{shown}}}"`.'
        )


def _warn_of_separators(kind: type[BaseModel], name: str, value: str) -> None:
    """Warn if a text with commas or semicolons is a single item of a list, as in ``contains: tea, coffee``, and not
    several, as the tags of ``pos``."""
    if _is_one_of_several(kind, name, value):
        several = readable(", ".join(_items(value)), 60)
        warn_once(f"{readable(value, 60)!r} is taken as one phrase, with its punctuation; several are [{several}].")


def _items(value: str) -> list[str]:
    return [item for item in re.split(r"\s*[,;]\s*", value.strip()) if item]


def _is_one_of_several(kind: type[BaseModel], name: str, value: str) -> bool:
    """Whether a text with commas or semicolons is valid as a single item of a list."""
    if len(_items(value)) < 2:
        return False
    try:
        return bool(getattr(kind.model_validate({name: [value]}), name) == [value])
    except Exception:  # a fault, whatever a plug-in raises, is reported with its place when the control is checked
        return False
