"""Rows of a table that come batch by batch, as columns, from who knows which part of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np

from dlmctl.datasets.target_table import Row, plain_cells
from dlmctl.errors import DataError, readable
from dlmctl.recipe.yaml_file import MOST_NUMBER

Batch = Mapping[str, Any]
"""Columns by name, each a list or an array of as many cells."""


class BatchRows:
    """The rows of a batch by their places in the whole table.

    Attributes:
        name: of the batch in messages; columns: in order; places: of each row, from 0; in_column: whether these stand
            in a column.
    """

    name = "the batch"

    def __init__(
        self, batch: Batch, index: str, indices: Sequence[Any] | None, samples: int, named: Collection[str]
    ) -> None:
        """Reads a batch.

        Args:
            named: the columns that rows are asked for; others may hold what no cell of a target can.
            index: the column that holds the places, where ``indices`` does not give them.
            samples: texts of each row, whose numbers must be countable.

        Raises:
            DataError: it is no dict of columns of one length, a place is missing, is none, or comes twice.
        """
        self.count = _rows_in(batch)
        self.batch, self.columns = batch, list(batch)
        self._cells_of = {name: in_order(batch[name]) for name in self.columns if name in named}
        self.index, self.in_column = index, indices is None and index in batch
        given = in_order(batch[index]) if self.in_column else indices
        if given is None:
            what = f"has no column {index!r}, which says where each row stands in the whole table: its seed follows."
            remedy = f"datasets: map(..., with_indices=True). Ray: give the table a column {index!r}, from 0 on."
            raise DataError(what, where=self.name, remedy=remedy)
        if not hasattr(given, "__len__") or len(given) != self.count:
            raise DataError(f"must be a place for each of the {self.count} rows, not {_shown(given)}.", where="indices")
        most = MOST_NUMBER // samples - 1
        self.places = [self._place(at, value, most) for at, value in enumerate(given)]
        self._at: dict[int, int] = {}
        for at, place in enumerate(self.places):
            if self._at.setdefault(place, at) != at:
                what = f"stands at two rows of one batch, {self._at[place] + 1} and {at + 1}."
                remedy = "Each row has a number of its own, from 0 on, or its texts are those of another."
                raise DataError(what, where=self._where(place), remedy=remedy)

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """The rows at these places."""
        return [Row(number + 1, self._where(number), self._cells(self._at[number])) for number in numbers]

    def _cells(self, at: int) -> Mapping[str, Any]:
        return plain_cells({name: cells[at] for name, cells in self._cells_of.items()})

    def _where(self, place: int) -> str:
        return f"{readable(self.index, 60)}={place}"

    def _place(self, at: int, value: Any, most: int) -> int:
        value = value.item() if getattr(value, "size", None) == 1 else value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            what = f"the column {self.index!r} must hold the row's place, a whole number from 0, not {_shown(value)}."
            raise DataError(what, where=f"row {at + 1} of {self.name}")
        return value


def in_order(column: Any) -> Sequence[Any]:
    """The cells of a column by their places in the batch; a Series of pandas by itself looks them up by its labels."""
    if type(column) is list or isinstance(column, np.ndarray):
        return cast("Sequence[Any]", column)
    # Of PyArrow, whose cells are else objects that know no arithmetic.
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def _rows_in(batch: Any) -> int:
    """How many rows a batch has."""
    if not isinstance(batch, Mapping) or not all(isinstance(name, str) for name in batch):
        what = f"must be a dict of columns, not {type(batch).__name__!r}."
        remedy = "datasets: map(..., batched=True), and no with_format. Ray: leave batch_format as it is."
        raise DataError(what, where=BatchRows.name, remedy=remedy)
    counts = {}
    for name in batch:
        column = batch[name]
        if isinstance(column, str) or not hasattr(column, "__len__"):
            what = f"the column {name!r} must be a list or an array of cells, not {_shown(column)}."
            raise DataError(what, where=BatchRows.name, remedy="datasets: map(..., batched=True).")
        counts[name] = len(column)
    for name, count in counts.items():
        first = next(iter(counts))
        if count != counts[first]:
            what = f"the column {name!r} has {count} cells and {first!r} has {counts[first]}."
            raise DataError(what, where=BatchRows.name)
    return next(iter(counts.values()), 0)


def _shown(value: Any) -> str:
    return readable(repr(value), 60)
