"""Tables of targets with any number of rows: read once, stored on disk, with random access to rows.

Tables come from spreadsheets, scripts and people: CSV with commas or semicolons, tab-separated values, JSON lines, one
text per line, Parquet. Rows are copied to an unnamed temporary file, so that memory holds only two numbers per row.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from dlmctl.datasets.lines import filled_lines, json_lines, plain_suffix, raw_lines
from dlmctl.datasets.tables import HEADER_FIRST, parquet_rows, require_no_surplus, separator_of, table_rows
from dlmctl.errors import DataError, readable
from dlmctl.text.plain_values import plain_value

MAX_ROWS = 10_000_000
MAX_COLUMNS = 1000
# Of one row, as JSON.
MAX_BYTES = 2**20
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt", ".parquet")
# The column name for files with one text per line.
LINE = "line"
STANDARD_INPUT = "standard input"

# Numbers that are written back in the same spelling, unlike ``007``, ``-0`` and ``1.50``.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}", re.ASCII)


# The JSON escape of NUL, and the beginning of the escapes of surrogates, in complete pairs too.
_UNWRITABLE_ESCAPES = (rb"\u0000", rb"\ud")


class Row(NamedTuple):
    """A row: its number, from 1, its place in the file, and its non-empty cells.

    In formats without types (``untyped``), all cells are text, and numbers may have a ``decimal_comma``.
    """

    number: int
    where: str
    cells: Mapping[str, Any]
    untyped: bool = False
    decimal_comma: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """The cells as shown in results: text that is the usual spelling of a number becomes that number."""
        return {name: _number(cell) if self.untyped else cell for name, cell in self.cells.items()}


def _number(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) and repr(float(text)) == text else text


class Rows(Protocol):
    """Random access to rows by number, from 0; ``name`` and ``columns`` as in ``TargetTable``."""

    name: str
    columns: list[str]

    def rows(self, numbers: Sequence[int]) -> list[Row]: ...


class TargetTable:
    """The rows of a table.

    Attributes:
        name: the name of the file.
        columns: the columns of all rows, in order.
        digest: SHA-256 of all cells.
    """

    def __init__(
        self,
        name: str,
        rows: Iterable[tuple[int, Mapping[str, Any]]],
        *,
        untyped: bool = False,
        decimal_comma: bool = False,
        blank_lines: bool = False,
    ) -> None:
        """Read ``rows``, each with its line number; see ``open_table``.

        Args:
            untyped: whether the file format has no types.
            blank_lines: whether a row without any cell is a blank line, as at the end of a spreadsheet, and no row.
            decimal_comma: whether numbers have a decimal comma.

        Raises:
            DataError: there are no rows or too many, or one is too large.
        """
        self.name, self.untyped, self.decimal_comma = name, untyped, decimal_comma
        # Stays open as long as the table exists.
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._offsets, self._lines = array("Q"), array("Q")
        try:
            self.columns, self.digest = self._write(rows, blank_lines)
            self._file.flush()
        except OSError as error:
            what = f"its rows cannot be stored in {tempfile.gettempdir()}: {error.strerror or error}."
            raise DataError(what, where=name, remedy="Set TMPDIR to a folder with room for them.") from None
        if not self._offsets:
            raise DataError("holds no rows.", where=name, remedy="Each target needs a row with a non-empty cell.")

    def _write(self, rows: Iterable[tuple[int, Mapping[str, Any]]], blank_lines: bool) -> tuple[list[str], str]:
        """Write the rows to the file and return the columns and the digest."""
        columns: dict[str, None] = {}
        digest = hashlib.sha256()
        offset = 0
        for line, row in rows:
            cells = _non_empty_cells(row)
            if not cells and blank_lines:
                continue
            if len(self._offsets) == MAX_ROWS:
                raise DataError(f"has more than {MAX_ROWS:,} rows.", where=self.where(line), remedy="Split it.")
            new_columns = [name for name in row if name not in columns]
            columns.update(dict.fromkeys(new_columns))
            encoded = _as_json(cells).encode() + b"\n"
            if len(encoded) > MAX_BYTES or len(columns) > MAX_COLUMNS:
                limit = f"more than {MAX_COLUMNS:,} columns" if len(columns) > MAX_COLUMNS else "a row of over 1 MiB"
                raise DataError(f"has {limit}.", where=self.where(line))
            self._refuse_unwritable(line, new_columns, encoded)
            self._offsets.append(offset)
            self._lines.append(line)
            offset += self._file.write(encoded)
            digest.update(encoded)
        return list(columns), digest.hexdigest()

    def _refuse_unwritable(self, line: int, new_columns: Sequence[str], encoded: bytes) -> None:
        """Raise DataError if a row or a new column has characters that no table of results can hold."""
        has_escapes = any(escape in encoded for escape in _UNWRITABLE_ESCAPES)
        cells: dict[str, Any] = json.loads(encoded) if has_escapes else {}
        for name, cell in {**dict.fromkeys(new_columns), **cells}.items():
            characters = _unwritable_characters(name) or _unwritable_characters(cell)
            if characters is not None:
                what = f"the column {readable(repr(name), 60)} holds {characters}, which cannot be written to results."
                raise DataError(what, where=self.where(line), remedy="Leave it out.")

    def __len__(self) -> int:
        return len(self._offsets)

    def where(self, line: int) -> str:
        """The place of a line, such as ``targets.csv:12``."""
        return f"{self.name}:{line}"

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """The rows with these numbers, counted from 0."""
        rows = []
        for number in numbers:
            self._file.seek(self._offsets[number])
            cells = json.loads(self._file.readline())
            rows.append(Row(number + 1, self.where(self._lines[number]), cells, self.untyped, self.decimal_comma))
        return rows


def open_table(source: str) -> TargetTable:
    """The table in a file; ``-`` for standard input.

    Raises:
        DataError: it cannot be read, is not UTF-8, has a column twice, a row with more cells than columns, or no rows.
    """
    if source == "-":
        with _standard_input() as path:
            try:
                return _table_in(STANDARD_INPUT, path)
            except DataError as error:
                where = (error.where or "").replace(str(path), STANDARD_INPUT)
                raise DataError(error.what, where=where, remedy=error.remedy) from None
    path = Path(source)
    if plain_suffix(path) not in SUFFIXES:
        what = f"the suffix {path.suffix!r} is not known for targets."
        raise DataError(what, where=source, remedy=f"Use {', '.join(SUFFIXES)}.")
    return _table_in(source, path)


def _table_in(name: str, path: Path) -> TargetTable:
    untyped = plain_suffix(path) in (".csv", ".tsv")
    # Spreadsheets separate cells by semicolons where the comma is the decimal separator.
    decimal_comma = untyped and separator_of(path) == ";"
    blank_lines = untyped or plain_suffix(path) == ".txt"
    return TargetTable(name, _rows_of(path), untyped=untyped, decimal_comma=decimal_comma, blank_lines=blank_lines)


def table_of(rows: Iterable[Any]) -> TargetTable:
    """The table of rows in memory, each a mapping of columns to cells.

    Raises:
        DataError: a row is not such a mapping, or there are no rows.
    """

    def checked() -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
                what = f"a row is a mapping of columns to cells, not {readable(repr(row), 80)}."
                raise DataError(what, where=f"targets:{number}")
            yield number, row

    return TargetTable("targets", checked())


@contextmanager
def _standard_input() -> Iterator[Path]:
    """The contents of standard input as a file: JSON lines if they begin with a brace, else CSV."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "targets"
        with path.open("wb") as file:
            if sys.stdin is not None:  # None if it is closed
                shutil.copyfileobj(sys.stdin.buffer, file)
        first = next((line.text for line in filled_lines(path)), "")
        yield path.rename(path.with_suffix(".jsonl" if first.startswith("{") else ".csv"))


def _rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    suffix = plain_suffix(path)
    if suffix in (".jsonl", ".ndjson"):
        for number, value in json_lines(path):
            if not isinstance(value, dict):
                raise DataError("a row must be a JSON object.", where=f"{path}:{number}")
            yield number, value
    elif suffix == ".txt":
        for number, text in raw_lines(path):
            yield number, {LINE: text.rstrip("\r\n")}
    elif suffix == ".parquet":
        yield from parquet_rows(path, [])
    else:
        yield from _spreadsheet_rows(path)


def _spreadsheet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of CSV and tab-separated values, as written by spreadsheets."""
    for number, row in table_rows(path, []):
        where, unnamed = f"{path}:{number}", row.pop("", None)
        require_no_surplus(path, number, row)
        row.pop(None, None)
        if unnamed and unnamed.strip():
            what = f"the column of {readable(unnamed, 60)!r} has no name in the header."
            remedy = f"Name it, or leave it out, as pandas does with index=False. {HEADER_FIRST}"
            raise DataError(what, where=where, remedy=remedy)
        yield number, row


def plain_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """The non-empty cells of a row as plain JSON values, as a table stores them."""
    cells: dict[str, Any] = json.loads(_as_json(_non_empty_cells(row)))
    return cells


def _non_empty_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell for name, value in row.items() if (cell := _cell(value)) is not None}


def _unwritable_characters(value: Any) -> str | None:
    """A description of characters in a cell that a table of results cannot hold, None if there are none."""
    if isinstance(value, str):
        if "\0" in value:
            return "the character NUL"
        return "half of a surrogate pair" if any("\ud800" <= char <= "\udfff" for char in value) else None
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((characters for part in parts if (characters := _unwritable_characters(part)) is not None), None)


def _as_json(cells: Mapping[str, Any]) -> str:
    return json.dumps(cells, default=_plain)


def _plain(value: Any) -> Any:
    """A value that JSON has no type for: an array or a set as a list, bytes and anything else as text."""
    if isinstance(value, set | frozenset):
        return plain_value(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _cell(value: Any) -> Any:
    """A cell's value, None if it is empty: white space, None, NaN or infinite, or a missing value of pandas."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):  # NumPy numbers and arrays
        return _cell(value.tolist())
    return value
