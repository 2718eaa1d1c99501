"""Cells of a table as parameters of a control: spreadsheet text is read as the type that the parameter needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from dlmctl.recipe.explain import settings_place
from dlmctl.recipe.placeholders import Filled, fill_placeholders
from dlmctl.recipe.yaml_file import Place

_WHOLE = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False}
# Separators of list items in a cell; the first that occurs is used.
_SEPARATORS = (";", ",", " ")
# How pydantic's types of errors begin where a list is missing.
_LISTS = ("list_", "tuple_", "set_")


def fill_params(params_type: type[BaseModel], params: Any, cells: Mapping[str, Any]) -> Filled:
    """Parameters with the cells of a row filled in; an empty cell in a list of bounds leaves that end open."""
    has_extra = getattr(params_type, "numbers_beyond_fields", False)

    def is_bounds(place: Place) -> bool:
        if len(place) != 1:
            return False
        field = params_type.model_fields.get(str(place[0]))
        return has_extra if field is None else _may_be_open(field.annotation)

    return fill_placeholders(params, cells, is_bounds)


def _may_be_open(annotation: Any) -> bool:
    """Whether the type of a field is a list in which None may stand for an item."""
    return get_origin(annotation) is list and type(None) in get_args(get_args(annotation)[0])


def read_params(params_type: type[BaseModel], row: Filled, *, decimal_comma: bool = False) -> BaseModel | None:
    """Parameters from a row, each cell read as the type that its place needs; None if the control is left out.

    A cell of text becomes a number, a boolean or a list if its place accepts nothing else; a number becomes text. List
    items are separated by semicolons, commas or spaces, or the cell is JSON. Parameters with a true
    ``numbers_beyond_fields`` accept both numbers and names under any key: there a cell is a number if it can be read as
    one. A control is left out if an empty cell removed something that it requires.

    Args:
        row: see ``fill_params``.
        decimal_comma: whether the table has numbers such as 2,5.

    Raises:
        ValidationError: they do not validate.
    """
    if row.value is None:
        return None
    params, cells = row.value, set(row.cells)
    context = {"cells": bool(cells)}  # for validators that accept text in place of a list
    if getattr(params_type, "numbers_beyond_fields", False):
        _read_extra(params_type, params, cells, decimal_comma)
    cells |= row.numbers
    while True:
        try:
            return params_type.model_validate(params, context=context)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            read = [
                place
                for fault in faults
                if (place := settings_place(fault, params)) in cells
                and _read(params, place, fault["type"], cells, decimal_comma)
            ]
            if not read:
                if row.left_out and _fault_keys(faults) <= _faults_without_cells(params_type, row):
                    return None
                raise


def _fault_keys(faults: Iterable[Any]) -> set[tuple[Any, ...]]:
    return {(fault["type"], fault["loc"], fault["msg"]) for fault in faults}


def _faults_without_cells(params_type: type[BaseModel], row: Filled) -> set[tuple[Any, ...]]:
    """The faults of the parameters with all cells empty: those of a control that lacks something it requires.

    Any other fault is due to the cells that a row has, not to those that it leaves empty.
    """
    try:
        params_type.model_validate(fill_placeholders(row.written, {}).value or {})
    except ValidationError as error:
        lacking = [fault for fault in error.errors(include_url=False) if fault["type"] == "missing" or not fault["loc"]]
        return _fault_keys(lacking)
    return set()


def _read(params: Any, place: Place, fault: str, cells: set[Place], decimal_comma: bool) -> bool:
    """Replace a cell by a value of the type that pydantic misses there, if possible; each cell is read once."""
    inner = params
    for step in place[:-1]:
        inner = inner[step]
    value = _convert(inner[place[-1]], fault, decimal_comma)
    if value is None:
        return False
    inner[place[-1]] = value
    cells.discard(place)
    if isinstance(value, list):
        cells |= {(*place, at) for at, item in enumerate(value) if type(item) in (str, int, float)}
    return True


def _read_extra(params_type: type[BaseModel], params: Any, cells: set[Place], decimal_comma: bool) -> None:
    """Replace cells under keys that are not fields by numbers, or by lists if they have semicolons or are JSON."""
    places = [place for place in cells if place and place[0] not in params_type.model_fields]
    for place in places:
        inner = params
        for step in place[:-1]:
            inner = inner[step]
        text = inner[place[-1]]
        items = _list(text) if ";" in text or _json(text) is not None else None
        if items is None:
            number = _number(text, decimal_comma)
            inner[place[-1]] = text if number is None else number
        elif len(place) == 1:
            numbers = [_number(item, decimal_comma) if isinstance(item, str) else None for item in items]
            inner[place[-1]] = [item if number is None else number for item, number in zip(items, numbers, strict=True)]
    for name in {place[0] for place in places}:
        value = params[name]
        if isinstance(value, list) and any(isinstance(item, str) for item in value):
            params[name] = [item for item in value if item is not None]  # in a list of names, None is not an open end


def _convert(cell: str | float, fault: str, decimal_comma: bool) -> Any:
    """The value of a cell for a place where pydantic reports ``fault``; None if it has none."""
    if isinstance(cell, str):
        return _of_text(cell, fault, decimal_comma)
    if fault.startswith(_LISTS):
        return [cell]
    return str(cell) if fault == "string_type" else None


def _of_text(text: str, fault: str, decimal_comma: bool) -> Any:
    if fault.startswith("int_"):
        number = _number(text, decimal_comma)
        return number if isinstance(number, int) else _number(text)  # 3,5 may be a list of two places
    if fault.startswith(("float_", "decimal_")):
        return _number(text, decimal_comma)
    if fault.startswith("bool_"):
        return _BOOLEANS.get(text.strip().lower())
    if fault.startswith(_LISTS):
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
    value = _json(text)
    if isinstance(value, list):
        return value
    separator = next((separator for separator in _SEPARATORS if separator in text), None)
    items: Iterable[str] = [text] if separator is None else text.split(None if separator == " " else separator)
    return [item.strip() for item in items if item.strip()]


def _json(text: str) -> Any:
    try:
        value = json.loads(text) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list | dict) else None
