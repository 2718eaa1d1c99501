"""Results as tables on disk: CSV, tab-separated values, Parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dlmctl.errors import UserError
from dlmctl.generation.flat import Columns, Record

# Rows of one row group of Parquet.
ROWS = 10_000
Records = Callable[[], Iterable[Record]]


def write_table(file: IO[str], records: Records, delimiter: str, targets: Iterable[str] = ()) -> None:
    """Write rows as CSV, or with another delimiter, the columns of ``flat.Columns`` first."""
    columns = Columns.of(records(), targets)
    writer = row_writer(file, list(columns.kinds), delimiter)
    writer.writeheader()
    writer.writerows(_plain(columns.row(record)) | columns.spelled(record) for record in records())


def row_writer(file: IO[str], columns: Sequence[str], delimiter: str) -> csv.DictWriter[str]:
    """A writer of rows by column, whose lines end in a line feed."""
    # Which cells it puts in quotes depends on its line ends: with a line feed alone, none with a carriage return in it.
    return csv.DictWriter(_LineFeeds(file), columns, delimiter=delimiter, lineterminator="\r\n")


class _LineFeeds:
    """What a writer of CSV writes to, a row at a time."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def write(self, row: str) -> int:
        return self.file.write(row.removesuffix("\r\n") + "\n")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers as people read them: true and false as 1 and 0, scores without a tail of digits."""
    return {
        name: int(value) if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else value
        for name, value in row.items()
    }


def require_parquet(path: Path) -> Any:
    """The module that writes Parquet.

    Raises:
        UserError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        what, remedy = "writing Parquet needs pyarrow.", 'Install it with `pip install "dlmctl[parquet]"`.'
        raise UserError(what, where=str(path), remedy=remedy) from None
    return pyarrow


def write_parquet(path: Path, records: Records, targets: Iterable[str] = ()) -> None:
    """Write the same rows as Parquet, a part of them at a time.

    Raises:
        UserError: pyarrow is not installed.
    """
    arrow = require_parquet(path)
    columns = Columns.of(records(), targets)
    types = {int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_(), str: arrow.string()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.kinds.items()])
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        for rows in _parts(map(columns.row, records())):
            writer.write_table(arrow.Table.from_pylist(rows, schema))


def _parts(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(rows)
    while part := list(islice(left, ROWS)):
        yield part
