"""A table of targets, of any number of rows: read once, kept on disk, and any rows of it at hand after that.

Tables come from spreadsheets, scripts and people: CSV with commas or semicolons, tab-separated values, JSON lines, a
text a line, Parquet. What is read is written to a file without a name, so that memory holds two numbers a row.
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
from dlmctl.datasets.tables import parquet_rows, separator_of, table_rows
from dlmctl.errors import DataError, readable

MOST_ROWS = 10_000_000
MOST_COLUMNS = 1000
# Of one row, written out as JSON.
MOST_BYTES = 2**20
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt", ".parquet")
# The column of a file that has a text a line.
LINE = "line"
STANDARD_INPUT = "standard input"


# Numbers as they are written again; ``007``, ``-0`` and ``1.50`` are not.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}", re.ASCII)


# How JSON spells the character NUL, and begins the halves of surrogate pairs, whole ones too.
_UNWRITABLE = (rb"\u0000", rb"\ud")


class Row(NamedTuple):
    """A row: its number, from 1, where it stands, and its cells; those that are empty are left out.

    Of a file that knows text alone (``untyped``) all cells are text, in which numbers may have a ``decimal_comma``.
    """

    number: int
    where: str
    cells: Mapping[str, Any]
    untyped: bool = False
    decimal_comma: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """The cells as results show them: text that is a number, and nothing but its usual spelling, is that number."""
        return {name: _number(cell) if self.untyped else cell for name, cell in self.cells.items()}


def _number(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) and repr(float(text)) == text else text


class Rows(Protocol):
    """Rows at hand by their number, from 0; ``name`` and ``columns`` as of a ``TargetTable``."""

    name: str
    columns: list[str]

    def rows(self, numbers: Sequence[int]) -> list[Row]: ...


class TargetTable:
    """The rows of a table.

    Attributes:
        name: of the file.
        columns: in order, of all rows.
        digest: SHA-256 of all cells.
    """

    def __init__(
        self,
        name: str,
        rows: Iterable[tuple[int, Mapping[str, Any]]],
        *,
        untyped: bool = False,
        decimal_comma: bool = False,
    ) -> None:
        """Reads ``rows``, each with its line; see ``open_table``.

        Args:
            untyped: whether they come from a file that knows text alone.
            decimal_comma: whether a comma in its numbers is a decimal one.

        Raises:
            DataError: there are none, or too many, or one is too large.
        """
        self.name, self.untyped, self.decimal_comma = name, untyped, decimal_comma
        # It lives as long as the table.
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._starts, self._lines = array("Q"), array("Q")
        try:
            self.columns, self.digest = self._kept(rows)
            self._file.flush()
        except OSError as error:
            what = f"its rows cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}."
            raise DataError(what, where=name, remedy="Name a folder with room for them in TMPDIR.") from None
        if not self._starts:
            raise DataError("holds no rows.", where=name, remedy="Each target takes a row with a cell that is filled.")

    def _kept(self, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[list[str], str]:
        """Writes the rows to the file; the columns and the digest."""
        columns: dict[str, None] = {}
        digest = hashlib.sha256()
        at = 0
        for line, row in rows:
            cells = _filled_cells(row)
            if not cells:
                continue
            if len(self._starts) == MOST_ROWS:
                raise DataError(f"has more than {MOST_ROWS:,} rows.", where=self.where(line), remedy="Split it.")
            added = [name for name in row if name not in columns]
            columns.update(dict.fromkeys(added))
            written = _as_json(cells).encode() + b"\n"
            if len(written) > MOST_BYTES or len(columns) > MOST_COLUMNS:
                limit = f"more than {MOST_COLUMNS:,} columns" if len(columns) > MOST_COLUMNS else "a row of over 1 MiB"
                raise DataError(f"has {limit}.", where=self.where(line))
            self._refuse_unwritable(line, added, written)
            self._starts.append(at)
            self._lines.append(line)
            at += self._file.write(written)
            digest.update(written)
        return list(columns), digest.hexdigest()

    def _refuse_unwritable(self, line: int, added: Sequence[str], written: bytes) -> None:
        """Raise DataError where a row, or a column that is new with it, has what no table of results can hold."""
        held: dict[str, Any] = json.loads(written) if any(mark in written for mark in _UNWRITABLE) else {}
        for name, cell in {**dict.fromkeys(added), **held}.items():
            found = _unwritable(name) or _unwritable(cell)
            if found is not None:
                what = f"the column {readable(repr(name), 60)} holds {found}, which cannot be written again."
                raise DataError(what, where=self.where(line), remedy="Leave it out.")

    def __len__(self) -> int:
        return len(self._starts)

    def where(self, line: int) -> str:
        """``targets.csv:12``."""
        return f"{self.name}:{line}"

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """The rows with these numbers, counted from 0."""
        found = []
        for number in numbers:
            self._file.seek(self._starts[number])
            cells = json.loads(self._file.readline())
            found.append(Row(number + 1, self.where(self._lines[number]), cells, self.untyped, self.decimal_comma))
        return found


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
    if plain_suffix(path) not in ENDINGS:
        what = f"the ending {path.suffix!r} is not known for targets."
        raise DataError(what, where=source, remedy=f"Use {', '.join(ENDINGS)}.")
    return _table_in(source, path)


def _table_in(name: str, path: Path) -> TargetTable:
    untyped = plain_suffix(path) in (".csv", ".tsv")
    # Spreadsheets part cells by semicolons where commas are decimal.
    return TargetTable(name, _rows_of(path), untyped=untyped, decimal_comma=untyped and separator_of(path) == ";")


def table_of(rows: Iterable[Any]) -> TargetTable:
    """The table of rows at hand, each a mapping of columns to cells.

    Raises:
        DataError: one is no such mapping, or there are none.
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
    """What standard input holds, as a file: JSON lines where it begins with a brace, else CSV."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "targets"
        with path.open("wb") as file:
            if sys.stdin is not None:  # as where it is closed
                shutil.copyfileobj(sys.stdin.buffer, file)
        first = next((line.text for line in filled_lines(path)), "")
        yield path.rename(path.with_suffix(".jsonl" if first.startswith("{") else ".csv"))


def _rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    kind = plain_suffix(path)
    if kind in (".jsonl", ".ndjson"):
        for number, value in json_lines(path):
            if not isinstance(value, dict):
                raise DataError("a row is a JSON object.", where=f"{path}:{number}")
            yield number, value
    elif kind == ".txt":
        for number, text in raw_lines(path):
            yield number, {LINE: text.rstrip("\r\n")}
    elif kind == ".parquet":
        yield from parquet_rows(path, [])
    else:
        yield from _cells_of(path)


def _cells_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of CSV and tab-separated values, as spreadsheets write them."""
    marks = "tab" if plain_suffix(path) == ".tsv" else "comma or semicolon"
    for number, row in table_rows(path, []):
        where, nameless = f"{path}:{number}", row.pop("", None)
        over = next((cell for cell in row.pop(None, []) if cell.strip()), None)
        if over is not None:
            what = f"the row has more cells than there are columns: {readable(over, 60)!r} is in none."
            raise DataError(what, where=where, remedy=f"A cell with a {marks} in it goes in double quotes.")
        if nameless and nameless.strip():
            what = f"the header gives the column of {readable(nameless, 60)!r} no name."
            raise DataError(what, where=where, remedy="Name it, or leave it out, as pandas does with index=False.")
        yield number, row


def plain_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row as a table keeps them: plain values of JSON, without those that are empty."""
    found: dict[str, Any] = json.loads(_as_json(_filled_cells(row)))
    return found


def _filled_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell for name, value in row.items() if (cell := _cell(value)) is not None}


def _unwritable(value: Any) -> str | None:
    """What text in a cell cannot stand in a table of results, None where there is none."""
    if isinstance(value, str):
        if "\0" in value:
            return "the character NUL"
        return "half of a surrogate pair" if any("\ud800" <= char <= "\udfff" for char in value) else None
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for part in parts if (found := _unwritable(part)) is not None), None)


def _as_json(cells: Mapping[str, Any]) -> str:
    return json.dumps(cells, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))


def _cell(value: Any) -> Any:
    """A cell, None where it is empty: a text of white space, nothing, not a number, or what pandas has for these."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):  # numbers and arrays of NumPy
        return _cell(value.tolist())
    return value
