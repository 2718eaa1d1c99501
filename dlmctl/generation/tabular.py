"""Results as tables on disk: CSV, tab-separated values, Parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dlmctl.errors import UserError
from dlmctl.generation.flat import Columns, Record

# Rows of a Parquet row group.
ROW_GROUP_SIZE = 10_000
Records = Callable[[], Iterable[Record]]


def write_table(file: IO[str], records: Records, delimiter: str, targets: Iterable[str] = ()) -> None:
    """Write rows as CSV, or with another delimiter, below a header with the names of ``flat.Columns``."""
    columns = Columns.of(records(), targets)
    writer = row_writer(file, list(columns.kinds), delimiter)
    writer.writeheader()
    writer.writerows(_csv_values(columns.row(record)) | columns.original_cells(record) for record in records())


def row_writer(file: IO[str], columns: Sequence[str], delimiter: str) -> csv.DictWriter[str]:
    """A CSV writer of rows by column that ends lines with a line feed."""
    # With "\n" as its terminator the csv module would not quote cells that hold a carriage return.
    return csv.DictWriter(_LineFeeds(file), columns, delimiter=delimiter, lineterminator="\r\n")


class _LineFeeds:
    """A file for a CSV writer that replaces the line end of each row."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, row: str) -> int:
        return self.file.write(row.removesuffix("\r\n") + "\n")


def _csv_values(row: dict[str, Any]) -> dict[str, Any]:
    """Values as a CSV file has them: booleans as 1 and 0, floats with six significant digits."""
    return {
        name: int(value) if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else value
        for name, value in row.items()
    }


def require_parquet(path: Path) -> Any:
    """Return the pyarrow module, which writes Parquet.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        message, remedy = "writing Parquet needs pyarrow.", 'Install it with `pip install "dlmctl[parquet]"`.'
        raise UserError(message, where=str(path), remedy=remedy) from None
    return pyarrow


def write_parquet(path: Path, records: Records, targets: Iterable[str] = ()) -> None:
    """Write the same rows as Parquet, one row group at a time.

    Raises:
        UserError: pyarrow is not installed.
    """
    arrow = require_parquet(path)
    columns = Columns.of(records(), targets)
    types = {int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_(), str: arrow.string()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.kinds.items()])
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        for rows in _row_groups(map(columns.row, records())):
            writer.write_table(arrow.Table.from_pylist(rows, schema))


def _row_groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while group := list(islice(remaining, ROW_GROUP_SIZE)):
        yield group
