"""Cells of a table as the parameters of a control: text of a spreadsheet read as what stands there by the control."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dlmctl.recipe.explain import settings_place
from dlmctl.recipe.placeholders import Filled, filled
from dlmctl.recipe.yaml_file import Place

_WHOLE = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_TRUTHS = {"true": True, "false": False, "yes": True, "no": False}
# What separates the items of a list in a cell: the first of these that is there.
_SEPARATORS = (";", ",", " ")


def fill_params(kind: type[BaseModel], params: Any, cells: Mapping[str, Any]) -> Filled:
    """Parameters with the cells of a row in them; an empty cell in a list of bounds is an end that is open."""
    beyond = getattr(kind, "numbers_beyond_fields", False)
    return filled(params, cells, lambda place: beyond and len(place) == 1 and place[0] not in kind.model_fields)


def read_params(kind: type[BaseModel], found: Filled, *, decimal_comma: bool = False) -> BaseModel | None:
    """Parameters from a row, each cell read as what its place takes; None where a control is to be left out.

    Of a cell of text a number, true or false, or a list is made where nothing else is taken there: items of a list are
    separated by semicolons, commas or spaces, or stand as JSON. Parameters that have a true ``numbers_beyond_fields``
    take numbers and names alike under keys of any name: there a cell is a number where it can be read as one. A control
    is left out where an empty cell took away what it cannot do without.

    Args:
        found: see ``fill_params``.
        decimal_comma: whether the table has numbers such as 2,5.

    Raises:
        ValidationError: they do not validate.
    """
    if found.value is None:
        return None
    params, cells = found.value, set(found.cells)
    told = {"cells": bool(cells)}  # for who takes text where a list may stand
    if getattr(kind, "numbers_beyond_fields", False):
        _read_open(kind, params, cells, decimal_comma)
    while True:
        try:
            return kind.model_validate(params, context=told)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            read = [
                place
                for fault in faults
                if (place := settings_place(fault, params)) in cells
                and _read(params, place, fault["type"], cells, decimal_comma)
            ]
            if not read:
                if found.left_out and _faults_of(faults) <= _without_cells(kind, found):
                    return None
                raise


def _faults_of(faults: Iterable[Any]) -> set[tuple[Any, ...]]:
    return {(fault["type"], fault["loc"], fault["msg"]) for fault in faults}


def _without_cells(kind: type[BaseModel], found: Filled) -> set[tuple[Any, ...]]:
    """What is wrong with parameters all of whose cells are empty: there a control lacks what it cannot do without.

    Any other fault is one of what a row says, and not of what it leaves open.
    """
    try:
        kind.model_validate(filled(found.written, {}).value or {})
    except ValidationError as error:
        lacking = [one for one in error.errors(include_url=False) if one["type"] == "missing" or not one["loc"]]
        return _faults_of(lacking)
    return set()


def _read(params: Any, place: Place, fault: str, cells: set[Place], decimal_comma: bool) -> bool:
    """Put what a cell of text means in its place, if it means what is missing there; each cell is read once."""
    inner = params
    for step in place[:-1]:
        inner = inner[step]
    value = _meant(inner[place[-1]], fault, decimal_comma)
    if value is None:
        return False
    inner[place[-1]] = value
    cells.discard(place)
    if isinstance(value, list):
        cells |= {(*place, at) for at, item in enumerate(value) if isinstance(item, str)}
    return True


def _read_open(kind: type[BaseModel], params: Any, cells: set[Place], decimal_comma: bool) -> None:
    """Put numbers, and lists with semicolons or as JSON, in the places of cells under keys that are no fields."""
    read = [one for one in cells if one and one[0] not in kind.model_fields]
    for place in read:
        inner = params
        for step in place[:-1]:
            inner = inner[step]
        text = inner[place[-1]]
        several = _list(text) if ";" in text or _json(text) is not None else None
        if several is None:
            number = _number(text, decimal_comma)
            inner[place[-1]] = text if number is None else number
        elif len(place) == 1:
            numbers = [_number(one, decimal_comma) if isinstance(one, str) else None for one in several]
            inner[place[-1]] = [one if number is None else number for one, number in zip(several, numbers, strict=True)]
    for name in {place[0] for place in read}:
        bound = params[name]
        if isinstance(bound, list) and any(isinstance(one, str) for one in bound):
            params[name] = [one for one in bound if one is not None]  # of names an empty cell is no end


def _meant(text: str, fault: str, decimal_comma: bool) -> Any:
    """What a text means where pydantic reports ``fault``, None for nothing else."""
    if fault.startswith("int_"):
        number = _number(text, decimal_comma)
        return number if isinstance(number, int) else _number(text)  # 3,5 may be two places
    if fault.startswith(("float_", "decimal_")):
        return _number(text, decimal_comma)
    if fault.startswith("bool_"):
        return _TRUTHS.get(text.strip().lower())
    if fault.startswith(("list_", "tuple_", "set_")):
        return _list(text)
    return _json(text) if fault.startswith(("dict_", "model_")) else None


def _number(text: str, decimal_comma: bool = False) -> int | float | None:
    text = text.strip()
    if decimal_comma and "." not in text:
        text = text.replace(",", ".", 1)
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
