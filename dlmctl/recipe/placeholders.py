"""Placeholders in a recipe, such as ``{food}``, and a row of a table in their places.

A placeholder that is the whole of a value stands for the cell with its type; within a text it is written out. An empty
cell leaves out the value that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from dlmctl.errors import RecipeError, readable
from dlmctl.recipe.yaml_file import Place

# Begins with a letter, as no number of words of a blank, {1,3}, and no repetition in a pattern does.
PLACEHOLDER = re.compile(r"\{([^\W\d][^{}\n]{0,99})\}")


class Filled(NamedTuple):
    """A value with a row's cells in it.

    Attributes:
        value: None where nothing is left of it.
        cells: where a cell of text is the whole of a value, so that it may be meant as a number or a list.
        left_out: whether any value was, for an empty cell.
        written: the value as it was, with its placeholders.
    """

    value: Any
    cells: frozenset[Place]
    left_out: bool
    written: Any = None


def placeholders_in(value: Any, place: Place = ()) -> Iterator[tuple[str, Place]]:
    """Every column that a value names, with its place."""
    if isinstance(value, str):
        yield from ((name, place) for name in PLACEHOLDER.findall(value))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from placeholders_in(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from placeholders_in(inner, (*place, at))


def quoted(value: Any) -> Any:
    """A value with ``{food}``, which YAML reads as a mapping of ``food`` to nothing, as the placeholder that it is."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value.values())) is None:
            written = f"{{{next(iter(value))}}}"
            if PLACEHOLDER.fullmatch(written):
                return written
        return {key: quoted(inner) for key, inner in value.items()}
    return [quoted(inner) for inner in value] if isinstance(value, list) else value


def filled(value: Any, row: Mapping[str, Any], ends: Callable[[Place], bool] = lambda _: False) -> Filled:
    """A value with the cells of a row in place of its placeholders; cells that are None or missing are empty.

    Args:
        ends: whether the list at a place is one of bounds, where an empty cell is None: that end is open.

    Raises:
        RecipeError: a list or a mapping would stand inside a text.
    """
    filler = _Filler(row, ends)
    found = filler.of(value, ())
    return Filled(found, frozenset(filler.cells), filler.left_out, value)


class _Filler:
    def __init__(self, row: Mapping[str, Any], ends: Callable[[Place], bool]) -> None:
        self.row, self.ends, self.cells, self.left_out = row, ends, set[Place](), False

    def of(self, value: Any, place: Place) -> Any:
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, Mapping):
            return self._mapping(value, place)
        return self._list(value, place) if isinstance(value, list) else value

    def _mapping(self, value: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
        found = {key: self.of(inner, (*place, key)) for key, inner in value.items()}
        kept = {key: inner for key, inner in found.items() if inner is not None or value[key] is None}
        return kept if kept or not value else None

    def _list(self, value: list[Any], place: Place) -> list[Any] | None:
        kept: list[Any] = []
        for inner in value:
            found = self.of(inner, (*place, len(kept)))
            if found is not None or inner is None or self.ends(place):
                kept.append(found)
        nothing = not kept or (self.ends(place) and all(one is None for one in kept))
        return None if nothing and value else kept

    def _text(self, text: str, place: Place) -> Any:
        whole = PLACEHOLDER.fullmatch(text)
        if whole:
            cell = self.row.get(whole[1])
            self.left_out |= cell is None
            if isinstance(cell, str):
                self.cells.add(place)
            # A column of whole numbers with an empty cell is one of floats in a data frame.
            return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53 else cell
        names = PLACEHOLDER.findall(text)
        if any(self.row.get(name) is None for name in names):
            self.left_out = True
            return None
        return PLACEHOLDER.sub(lambda match: _written(match[1], self.row[match[1]]), text) if names else text


def _written(name: str, cell: Any) -> str:
    if isinstance(cell, list | dict):
        what = f"the column {readable(name, 60)!r} holds a list or an object, which cannot stand within a text."
        raise RecipeError(what, remedy="Let the placeholder be the whole value.")
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
