"""Placeholders in a recipe, such as ``{food}``, and filling them with a row of a table.

A placeholder that is a whole value is replaced by the cell, with its type; within a text it is formatted. In a list, a
cell that is a list itself adds its items. An empty cell removes the value that contains the placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from dlmctl.errors import RecipeError, readable
from dlmctl.recipe.yaml_file import Place

# Begins with a letter, unlike the size of a blank, {1,3}, or a repetition in a pattern.
PLACEHOLDER = re.compile(r"\{([^\W\d][^{}\n]{0,99})\}")


class Filled(NamedTuple):
    """A value with a row's cells filled in.

    Attributes:
        value: None if nothing is left of it.
        cells: the places where a cell of text is the whole value, so that it may mean a number or a list.
        left_out: whether an empty cell removed any value.
        written: the original value, with its placeholders.
        numbers: the places where a cell that is a number is the whole value, so that it may mean a word.
    """

    value: Any
    cells: frozenset[Place]
    left_out: bool
    written: Any = None
    numbers: frozenset[Place] = frozenset()


def placeholders_in(value: Any, place: Place = ()) -> Iterator[tuple[str, Place]]:
    """Yield every column that a value names, with its place."""
    if isinstance(value, str):
        yield from ((name, place) for name in PLACEHOLDER.findall(value))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from placeholders_in(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from placeholders_in(inner, (*place, at))


def quote_placeholders(value: Any) -> Any:
    """A value with ``{food}``, which YAML reads as a mapping of ``food`` to nothing, turned into a placeholder."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value.values())) is None:
            written = f"{{{next(iter(value))}}}"
            if PLACEHOLDER.fullmatch(written):
                return written
        return {key: quote_placeholders(inner) for key, inner in value.items()}
    return [quote_placeholders(inner) for inner in value] if isinstance(value, list) else value


def fill_placeholders(
    value: Any, row: Mapping[str, Any], is_bounds: Callable[[Place], bool] = lambda _: False
) -> Filled:
    """A value with its placeholders replaced by the cells of a row; cells that are None or missing are empty.

    Args:
        is_bounds: whether the list at a place is a pair of bounds, where an empty cell becomes None, an open end.

    Raises:
        RecipeError: a list or a mapping would be inside a text.
    """
    filler = _Filler(row, is_bounds)
    result = filler.fill(value, ())
    return Filled(result, frozenset(filler.cells), filler.left_out, value, frozenset(filler.numbers))


class _Filler:
    def __init__(self, row: Mapping[str, Any], is_bounds: Callable[[Place], bool]) -> None:
        self.row, self.is_bounds, self.left_out = row, is_bounds, False
        self.cells, self.numbers = set[Place](), set[Place]()

    def fill(self, value: Any, place: Place) -> Any:
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, Mapping):
            return self._mapping(value, place)
        return self._list(value, place) if isinstance(value, list) else value

    def _mapping(self, value: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
        mapping = {key: self.fill(inner, (*place, key)) for key, inner in value.items()}
        kept = {key: inner for key, inner in mapping.items() if inner is not None or value[key] is None}
        return kept if kept or not value else None

    def _list(self, value: list[Any], place: Place) -> list[Any] | None:
        kept: list[Any] = []
        for inner in value:
            item = self.fill(inner, (*place, len(kept)))
            if isinstance(item, list) and isinstance(inner, str) and not self.is_bounds(place):
                kept += item  # a cell with several items, as in `contains: "{words}"`
            elif item is not None or inner is None or self.is_bounds(place):
                kept.append(item)
        is_empty = not kept or (self.is_bounds(place) and all(item is None for item in kept))
        return None if is_empty and value else kept

    def _text(self, text: str, place: Place) -> Any:
        whole_match = PLACEHOLDER.fullmatch(text)
        if whole_match:
            cell = self.row.get(whole_match[1])
            self.left_out |= cell is None
            if isinstance(cell, str):
                self.cells.add(place)
            elif type(cell) in (int, float):
                self.numbers.add(place)
            return _plain_number(cell)
        names = PLACEHOLDER.findall(text)
        if any(self.row.get(name) is None for name in names):
            self.left_out = True
            return None
        return PLACEHOLDER.sub(lambda match: _format(match[1], self.row[match[1]]), text) if names else text


def _format(name: str, cell: Any) -> str:
    if isinstance(cell, list | dict):
        what = f"the column {readable(name, 60)!r} holds a list or an object, which cannot be part of a text."
        raise RecipeError(what, remedy="Let the placeholder be the whole value.")
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return str(_plain_number(cell))


def _plain_number(cell: Any) -> Any:
    """A whole number without a point: in a data frame, a column with an empty cell consists of floats."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53 else cell
