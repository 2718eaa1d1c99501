"""Reading tables by row: CSV with commas or semicolons, tab-separated values, Parquet."""

from __future__ import annotations

import csv
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dlmctl.datasets.lines import MAX_LINE_BYTES, Line, plain_suffix, raw_lines
from dlmctl.datasets.tab_rows import tab_rows
from dlmctl.errors import DataError, UserError, readable

Row = dict[Any, Any]
HEADER_FIRST = "Line 1 is the header; remove a title above it."
# A quoted part of a header line; the quote may be closed on a later line.
_IN_QUOTES = re.compile(r'"[^"]*("|$)')
# A line before the header that tells Excel the separator.
_SEPARATOR = re.compile(r'"?sep=([,;\t])"?', re.IGNORECASE)


def header_cells(line: str, delimiter: str = ",") -> list[str]:
    """The cells of a table's first line without surrounding white space; none if it is not a table."""
    csv.field_size_limit(MAX_LINE_BYTES)
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def delimiter_of(path: Path, header: str) -> str:
    """A tab for ``.tsv`` files; else the first of comma (default), semicolon and tab in the header, quotes aside."""
    if plain_suffix(path) == ".tsv":
        return "\t"
    unquoted = _IN_QUOTES.sub("", header)
    return next((mark for mark in (",", ";", "\t") if mark in unquoted), ",")


def separator_of(path: Path) -> str:
    """The separator of a table with a header.

    Raises:
        DataError: the file cannot be read.
    """
    return _read_header(path, raw_lines(path))[0]


def _read_header(path: Path, lines: Iterator[Line]) -> tuple[str, Line]:
    """The separator of a table, and its header; ``lines`` is left at the line after it."""
    first = next(lines, Line(1, ""))
    separator = _SEPARATOR.fullmatch(first.text.rstrip("\r\n"))
    if separator is not None:
        return separator[1], next(lines, Line(2, ""))
    return delimiter_of(path, first.text), first


def table_rows(path: Path, required: Sequence[str], *, fold_case: bool = False) -> Iterator[tuple[int, Row]]:
    """Rows of a table with a header, each with the number of its last line; surplus cells are under the key None.

    The key "" has the first non-empty cell of the columns without a name.

    Args:
        required: columns that it must have.
        fold_case: convert the column names to lower case.

    Raises:
        DataError: the file cannot be read, is not a table, lacks a column or has one twice.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = raw_lines(path)
    delimiter, header = _read_header(path, lines)
    rows = tab_rows(chain([header], lines)) if delimiter == "\t" else _csv_rows(path, header, lines, delimiter)
    names: list[str] = []
    for number, cells in rows:
        if not names:
            names = [cell.strip().lower() if fold_case else cell.strip() for cell in cells]
            _check_columns(path, names, required)
        elif cells:
            row: Row = dict(zip(names, cells, strict=False))
            row |= dict.fromkeys(names[len(cells) :])
            if "" in row:
                unnamed = (cell for name, cell in zip(names, cells, strict=False) if not name and cell.strip())
                row[""] = next(unnamed, row[""])
            if len(cells) > len(names):
                row[None] = cells[len(names) :]
            yield number, row
        else:
            yield number, {}
    if not names:
        _check_columns(path, names, required)


def require_no_surplus(path: Path, number: int, row: Row) -> None:
    """Check that a row of ``table_rows`` has no more cells than there are columns, as one with an unquoted comma has.

    Raises:
        DataError: it has.
    """
    surplus = next((cell for cell in row.get(None, []) if cell.strip()), None)
    if surplus is not None:
        what = f"the row has more cells than there are columns: {readable(surplus, 60)!r} is in none."
        separator = "tab" if plain_suffix(path) == ".tsv" else "separator"
        remedy = f"Put a cell with a {separator} in it in double quotes. {HEADER_FIRST}"
        raise DataError(what, where=f"{path}:{number}", remedy=remedy)


def _csv_rows(path: Path, header: Line, lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    def texts() -> Iterator[str]:
        yield header.text
        yield from (line.text for line in lines)

    # Strict, or a quote that is never closed would swallow the rest of the file as one row.
    reader = csv.reader(texts(), strict=True, delimiter=delimiter)
    skipped = header.number - 1
    last_line = skipped
    try:
        for cells in reader:
            last_line = skipped + reader.line_num
            yield last_line, cells
    except csv.Error as error:
        if "\r" in header.text.rstrip("\r\n"):
            remedy = "Save it again as CSV UTF-8, or end each line with a line feed."
            raise DataError("its lines end in carriage returns alone.", where=str(path), remedy=remedy) from None
        remedy = "A closing quote may be missing."
        raise DataError(f"is not CSV: {error}.", where=f"{path}:{last_line + 1}", remedy=remedy) from None


def _check_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    if not set(required) <= set(names):
        raise wrong_columns(path, names, [required])
    duplicate = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if duplicate is not None:
        raise DataError(f"has the column {duplicate[:40]!r} twice.", where=f"{path}:1", remedy="Rename one of them.")


def wrong_columns(path: Path, columns: Sequence[str], alternatives: Sequence[Sequence[str]]) -> DataError:
    """The error for a table that lacks the columns of every alternative."""
    listed = ", ".join(name[:40] for name in columns[:12]) + (", ..." if len(columns) > 12 else "")
    example = f", such as --text-field {shlex.quote(columns[0][:40])}" if columns else ""
    return DataError(
        f"the columns are {listed or 'missing'}.",
        where=f"{path}:1",
        remedy=f"They should be {' or '.join(','.join(names) for names in alternatives)}; `dlmctl data prepare` takes "
        f"texts from another column with --text-field{example}. The first line must name the columns.",
    )


def parquet_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Rows of a Parquet file by number, from 1; dates and other types become strings.

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
            _check_columns(path, file.schema_arrow.names, required)
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _json_value(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise DataError(f"cannot be read as Parquet: {reason}.", where=str(path)) from None


def _json_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_value(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _json_value(part) for name, part in value.items()}
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
