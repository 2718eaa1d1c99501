"""Rows of tables: CSV with commas or semicolons, tab-separated values, Parquet."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dlmctl.datasets.lines import MAX_LINE_BYTES, Line, plain_suffix, raw_lines
from dlmctl.datasets.tab_rows import tab_rows
from dlmctl.errors import DataError, UserError

Row = dict[Any, Any]
# Of a header what stands in quotes, also in one that goes on in the next line.
_IN_QUOTES = re.compile(r'"[^"]*("|$)')
# Before the header Excel may be told what separates cells.
_SEPARATOR = re.compile(r'"?sep=([,;\t])"?', re.IGNORECASE)


def header_cells(line: str, delimiter: str = ",") -> list[str]:
    """The cells of a table's first line without the white space around them, none where it is no table's."""
    csv.field_size_limit(MAX_LINE_BYTES)
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def delimiter_of(path: Path, header: str) -> str:
    """A tab in ``.tsv`` files; else a comma, or a semicolon or tab where the header has these alone, quotes aside."""
    if plain_suffix(path) == ".tsv":
        return "\t"
    bare = _IN_QUOTES.sub("", header)
    return next((mark for mark in (",", ";", "\t") if mark in bare), ",")


def separator_of(path: Path) -> str:
    """What separates the cells of a table that has a header.

    Raises:
        DataError: the file cannot be read.
    """
    return _head(path, raw_lines(path))[0]


def _head(path: Path, lines: Iterator[Line]) -> tuple[str, Line]:
    """What separates the cells of a table, and its header; the lines behind it are left."""
    first = next(lines, Line(1, ""))
    told = _SEPARATOR.fullmatch(first.text.rstrip("\r\n"))
    if told is not None:
        return told[1], next(lines, Line(2, ""))
    return delimiter_of(path, first.text), first


def table_rows(path: Path, wanted: Sequence[str], *, fold_case: bool = False) -> Iterator[tuple[int, Row]]:
    """Rows of a table with a header, each with the number of its last line; what is over stands under None.

    Under an empty name stands the first cell that is filled in a column without one.

    Args:
        wanted: columns that it must have.
        fold_case: take the names of columns in small letters.

    Raises:
        DataError: the file cannot be read, is no table, lacks a column or has one twice.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = raw_lines(path)
    delimiter, first = _head(path, lines)
    rows = tab_rows(chain([first], lines)) if delimiter == "\t" else _csv_rows(path, first, lines, delimiter)
    names: list[str] = []
    for number, cells in rows:
        if not names:
            names = [cell.strip().lower() if fold_case else cell.strip() for cell in cells]
            _check_columns(path, names, wanted)
        elif cells:
            row: Row = dict(zip(names, cells, strict=False))
            row |= dict.fromkeys(names[len(cells) :])
            if "" in row:
                nameless = (cell for name, cell in zip(names, cells, strict=False) if not name and cell.strip())
                row[""] = next(nameless, row[""])
            if len(cells) > len(names):
                row[None] = cells[len(names) :]
            yield number, row
        else:
            yield number, {}
    if not names:
        _check_columns(path, names, wanted)


def _csv_rows(path: Path, header: Line, lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    def texts() -> Iterator[str]:
        yield header.text
        yield from (line.text for line in lines)

    # Strict, or one quote left open would swallow the rest of the file as one row.
    reader = csv.reader(texts(), strict=True, delimiter=delimiter)
    before = header.number - 1
    done = before
    try:
        for cells in reader:
            done = before + reader.line_num
            yield done, cells
    except csv.Error as error:
        if "\r" in header.text.rstrip("\r\n"):
            remedy = "Save it anew, as CSV UTF-8, or put a line feed behind each line."
            raise DataError("its lines end in carriage returns alone.", where=str(path), remedy=remedy) from None
        remedy = "A quote may be left open."
        raise DataError(f"is not CSV: {error}.", where=f"{path}:{done + 1}", remedy=remedy) from None


def _check_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    if not set(wanted) <= set(names):
        raise wrong_columns(path, names, [wanted])
    twice = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if twice is not None:
        raise DataError(f"has the column {twice[:40]!r} twice.", where=f"{path}:1", remedy="Rename one of them.")


def wrong_columns(path: Path, found: Sequence[str], forms: Sequence[Sequence[str]]) -> DataError:
    """What to say of a table without the columns of any of ``forms``."""
    shown = ", ".join(name[:40] for name in found[:12]) + (", ..." if len(found) > 12 else "")
    return DataError(
        f"the columns are {shown or 'missing'}.",
        where=f"{path}:1",
        remedy=f"They should be {' or '.join(','.join(form) for form in forms)}; another column is named by "
        "--text-field.",
    )


def parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a Parquet file by number, from 1; dates and the like become texts.

    Raises:
        UserError: pyarrow is not installed.
        DataError: the file cannot be read, lacks a column or has one twice.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "reading Parquet needs pyarrow.", where=str(path), remedy='Install it with `pip install "dlmctl[parquet]"`.'
        ) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, wanted)
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _plain(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise DataError(f"cannot be read as Parquet: {reason}.", where=str(path)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
