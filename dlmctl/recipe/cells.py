"""Cells of a table as the parameters of a control: text of a spreadsheet read as what stands there by the control."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from dlmctl.recipe.explain import settings_place
from dlmctl.recipe.placeholders import Filled
from dlmctl.recipe.yaml_file import Place

_WHOLE = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_TRUTHS = {"true": True, "false": False, "yes": True, "no": False}
# What separates the items of a list in a cell: the first of these that is there.
_SEPARATORS = (";", ",", " ")


def read_params(kind: type[BaseModel], found: Filled) -> BaseModel | None:
    """Parameters from a row, each cell read as what its place takes; None where a control is to be left out.

    Of a cell of text a number, true or false, or a list is made where nothing else is taken there: items of a list are
    separated by semicolons, commas or spaces, or stand as JSON. A control is left out where an empty cell took away
    what it cannot do without.

    Raises:
        ValidationError: they do not validate.
    """
    if found.value is None:
        return None
    params, cells = found.value, set(found.cells)
    told = {"cells": bool(cells)}  # for who takes text where a list may stand
    while True:
        try:
            return kind.model_validate(params, context=told)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            read = [
                place
                for fault in faults
                if (place := settings_place(fault, params)) in cells and _read(params, place, fault["type"], cells)
            ]
            if not read:
                if found.left_out and all(fault["type"] == "missing" or not fault["loc"] for fault in faults):
                    return None
                raise


def _read(params: Any, place: Place, fault: str, cells: set[Place]) -> bool:
    """Put what a cell of text means in its place, if it means what is missing there; each cell is read once."""
    inner = params
    for step in place[:-1]:
        inner = inner[step]
    value = _meant(inner[place[-1]], fault)
    if value is None:
        return False
    inner[place[-1]] = value
    cells.discard(place)
    if isinstance(value, list):
        cells |= {(*place, at) for at, item in enumerate(value) if isinstance(item, str)}
    return True


def _meant(text: str, fault: str) -> Any:
    """What a text means where pydantic reports ``fault``, None for nothing else."""
    if fault.startswith(("int_", "float_", "decimal_")):
        return _number(text)
    if fault.startswith("bool_"):
        return _TRUTHS.get(text.strip().lower())
    if fault.startswith(("list_", "tuple_", "set_")):
        return _list(text)
    return _json(text) if fault.startswith(("dict_", "model_")) else None


def _number(text: str) -> int | float | None:
    text = text.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value  # spreadsheets write 14 as 14.0


def _list(text: str) -> list[Any]:
    found = _json(text)
    if isinstance(found, list):
        return found
    mark = next((mark for mark in _SEPARATORS if mark in text), None)
    parts: Iterable[str] = [text] if mark is None else text.split(None if mark == " " else mark)
    return [part.strip() for part in parts if part.strip()]


def _json(text: str) -> Any:
    try:
        found = json.loads(text) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list | dict) else None
