"""Rows of a table that arrive as batches of columns, from any part of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dlmctl.datasets.in_memory import columns_in, in_order
from dlmctl.datasets.target_table import Row, plain_cells
from dlmctl.errors import DataError, readable
from dlmctl.recipe.yaml_file import MOST_NUMBER

Batch = Mapping[str, Any] | Any
"""Columns by name, lists or arrays of the same length; or a data frame of pandas or Polars, or a table of PyArrow."""


class BatchRows:
    """The rows of a batch by their places in the whole table.

    Attributes:
        name: of the batch in messages; columns: in order; places: of each row, from 0; has_index_column: whether the
            places are taken from a column.
    """

    name = "the batch"

    def __init__(
        self, batch: Batch, index: str, indices: Sequence[Any] | None, samples: int, needed_columns: Collection[str]
    ) -> None:
        """Reads a batch.

        Args:
            index: the column that holds the places if ``indices`` is not given.
            samples: texts of each row; it limits the places, since sample numbers are bounded.
            needed_columns: the columns that fill placeholders; others may hold values that no cell of a target can.

        Raises:
            DataError: it is not a dict of columns of the same length, or a place is missing, invalid or repeated.
        """
        batch = _columns(batch)
        self.count = _row_count(batch)
        self.batch, self.columns = batch, list(batch)
        self._cells_of = {name: in_order(batch[name]) for name in self.columns if name in needed_columns}
        self.index, self.has_index_column = index, indices is None and index in batch
        places = in_order(batch[index]) if self.has_index_column else indices
        if places is None:
            message = (
                f"has no column {index!r} with the place of each row in the whole table, which its seed depends on."
            )
            remedy = f"datasets: map(..., with_indices=True). Ray: give the table a column {index!r}, from 0 on."
            raise DataError(message, where=self.name, remedy=remedy)
        if not hasattr(places, "__len__") or len(places) != self.count:
            raise DataError(
                f"must be a place for each of the {self.count} rows, not {_brief_repr(places)}.", where="indices"
            )
        limit = MOST_NUMBER // samples - 1
        self.places = [self._place(at, value, limit) for at, value in enumerate(places)]
        self._positions: dict[int, int] = {}
        for at, place in enumerate(self.places):
            if self._positions.setdefault(place, at) != at:
                message = f"is the place of two rows of a batch, {self._positions[place] + 1} and {at + 1}."
                remedy = "Number the rows from 0 without repetition, or two rows get the same texts."
                raise DataError(message, where=self._where(place), remedy=remedy)

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """The rows at these places."""
        return [Row(number + 1, self._where(number), self._cells(self._positions[number])) for number in numbers]

    def _cells(self, at: int) -> Mapping[str, Any]:
        return plain_cells({name: cells[at] for name, cells in self._cells_of.items()})

    def _where(self, place: int) -> str:
        return f"{readable(self.index, 60)}={place}"

    def _place(self, at: int, value: Any, limit: int) -> int:
        value = value.item() if getattr(value, "size", None) == 1 else value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            message = (
                f"the column {self.index!r} must hold the row's place, a whole number from 0, not {_brief_repr(value)}."
            )
            raise DataError(message, where=f"row {at + 1} of {self.name}")
        return value


def _columns(batch: Any) -> Mapping[str, Any]:
    """A batch as columns by name."""
    try:
        columns = batch if isinstance(batch, Mapping) else columns_in(batch)
    except ValueError as error:
        raise DataError(str(error), where=BatchRows.name) from None
    if columns is None or not all(isinstance(name, str) for name in columns):
        what = f"must be a dict of columns or a data frame, with names as strings, not {_brief_repr(batch)}."
        remedy = "datasets: map(..., batched=True), and no with_format. A list of rows: pandas.DataFrame(rows)."
        raise DataError(what, where=BatchRows.name, remedy=remedy)
    return columns


def _row_count(batch: Mapping[str, Any]) -> int:
    """The number of rows of a batch."""
    counts = {}
    for name in batch:
        column = batch[name]
        if isinstance(column, str) or not hasattr(column, "__len__"):
            message = f"the column {name!r} must be a list or an array of cells, not {_brief_repr(column)}."
            raise DataError(message, where=BatchRows.name, remedy="datasets: map(..., batched=True).")
        counts[name] = len(column)
    for name, count in counts.items():
        first = next(iter(counts))
        if count != counts[first]:
            message = f"the column {name!r} has {count} cells and {first!r} has {counts[first]}."
            raise DataError(message, where=BatchRows.name)
    return next(iter(counts.values()), 0)


def _brief_repr(value: Any) -> str:
    return readable(repr(value), 60)
