"""A user's word lists, and tables of word properties as saved by spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from dlmctl.datasets.lines import filled_lines
from dlmctl.datasets.tables import Row, require_no_surplus, separator_of, table_rows
from dlmctl.errors import DataError, RecipeError, UserError, did_you_mean
from dlmctl.text.files import require_file
from dlmctl.text.spelling import folded

# The most bytes of a file (the largest published norms have some 10 MB), and words of a list or table.
MAX_BYTES, MAX_ROWS = 64 * 2**20, 1_000_000
# What spreadsheets and statistics programs write for a missing value.
_MISSING = frozenset(["", "na", "n/a", "#n/a", "nan", "null", "none", "-", "."])
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")

T = TypeVar("T")
Value = float | str | None
Bound = tuple[float | None, float | None] | frozenset[str]


@dataclass(frozen=True)
class WordTable:
    """Properties of words: ``rows`` by the folded word, with None for empty cells; ``name`` is the file name."""

    name: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Value]]


class _Stamp(NamedTuple):
    """Cache key of a file, so that a file is read again when its contents or its permissions have changed."""

    path: Path
    changed: tuple[int, int]
    size: int


def read_list(path: str) -> Mapping[str, str]:
    """The words of a file with one on each line, by their folded spelling; blank lines and those that begin with # are
    ignored.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is too large, or has no words.
    """
    return _list(_stamp(path))


def read_table(
    path: str, word: str, numbers: Sequence[str], names: Sequence[str], optional: Sequence[str] = ()
) -> WordTable:
    """Read a CSV or TSV file with a header and one row per word; of several rows for a word the first is used.

    Numbers may have decimal points or commas. Commas are decimal if semicolons separate the cells, and in a whole
    column if one of its cells cannot be read otherwise, such as 3,5 and 0,125; else they separate thousands, as in
    4,125.

    Args:
        word: the column with the word.
        numbers, names: columns whose cells are numbers, and columns whose cells are names.
        optional: those of ``numbers`` that the table may lack.

    Raises:
        DataError: the file cannot be read, is not UTF-8, is too large, is not a table, has a row with more cells than
            columns, or words instead of numbers.
        RecipeError: it lacks a column.
    """
    needed = [word, *(name for name in numbers if name not in optional), *names]
    return _table(_stamp(path), word, tuple(numbers), tuple(names), tuple(needed))


def _stamp(name: str) -> _Stamp:
    path = Path(name)
    remedy = (
        "A path in a recipe is relative to the recipe's folder, or else, like any other, to where dlmctl was started."
    )
    require_file(path, MAX_BYTES, error=DataError, remedy=remedy)
    status = path.stat()
    return _Stamp(path, (status.st_mtime_ns, status.st_ctime_ns), status.st_size)


def _cached(read: Callable[..., T]) -> Callable[..., T]:
    """``read`` that keeps its latest results, and its errors too: a run that fails asks for the same file several
    times, with a table of targets once for each row, and a file may take seconds to read."""

    @lru_cache(maxsize=8)
    def outcome(*key: Hashable) -> T | UserError:
        try:
            return read(*key)
        except UserError as error:
            return _renewed(error)

    def read_once(*key: Hashable) -> T:
        result = outcome(*key)
        if isinstance(result, UserError):
            raise _renewed(result)
        return result

    return read_once


def _renewed(error: UserError) -> UserError:
    """The same error without its traceback, which would keep everything that was read until then in memory."""
    return type(error)(error.what, where=error.where, remedy=error.remedy)


@_cached
def _list(stamp: _Stamp) -> Mapping[str, str]:
    words: dict[str, str] = {}
    for line in filled_lines(stamp.path):
        if not line.text.startswith("#"):
            words.setdefault(folded(line.text), line.text)
            _require_size(len(words), stamp.path)
    if not words:
        raise DataError("has no words.", where=str(stamp.path), remedy="Write one word on each line.")
    return words


@_cached
def _table(
    stamp: _Stamp, word: str, numbers: tuple[str, ...], names: tuple[str, ...], needed: tuple[str, ...]
) -> WordTable:
    rows: dict[str, dict[str, Value]] = {}
    cells: dict[str, dict[str, str]] = {name: {} for name in numbers}
    lines: dict[str, int] = {}
    columns: tuple[str, ...] = ()
    semicolons = separator_of(stamp.path) == ";"
    for number, row in table_rows(stamp.path, []):
        if not columns and row:
            columns = tuple(name for name in row if name is not None)
            _require_columns(stamp.path, columns, needed)
        require_no_surplus(stamp.path, number, row)
        written = folded(str(row.get(word) or "").strip())
        if written and written not in rows:
            rows[written] = {name: _cell(row, name) or None for name in names}
            lines[written] = number
            for name in numbers:
                cells[name][written] = _cell(row, name)
            _require_size(len(rows), stamp.path)
    if not rows:
        raise DataError(
            "has no rows with a word.", where=str(stamp.path), remedy="It needs a header and one row per word."
        )
    for name, column in cells.items():
        decimal = semicolons or any(_has_decimal_comma(cell) for cell in column.values())
        for written, cell in column.items():
            rows[written][name] = _number(cell, decimal, name, f"{stamp.path}:{lines[written]}")
    return WordTable(stamp.path.name, columns, rows)


def _cell(row: Row, name: str) -> str:
    return str(row.get(name) or "").strip()


def _require_size(count: int, path: Path) -> None:
    if count > MAX_ROWS:
        raise DataError(f"has more than {MAX_ROWS:,} words.", where=str(path))


def _require_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in columns:
            remedy = did_you_mean(name, [column[:40] for column in columns])
            if name == "word":
                remedy += " Name the column of the words by `word: COLUMN`."
            raise RecipeError(f"{path.name} has no column {name!r}.", where="lexicon", remedy=remedy)


def _has_decimal_comma(cell: str) -> bool:
    """Whether the comma of a cell cannot be a thousands separator."""
    thousands = _THOUSANDS.fullmatch(cell) and not cell.startswith(("0", "-0", "+0"))
    return not thousands and _DECIMAL_COMMA.fullmatch(cell) is not None


def _number(cell: str, decimal: bool, name: str, where: str) -> float | None:
    """The number in a cell of a column; None if it is empty.

    Args:
        decimal: whether commas of the column are decimal.

    Raises:
        DataError: the cell is not a number.
    """
    if cell.casefold() in _MISSING:
        return None
    if decimal and _DECIMAL_COMMA.fullmatch(cell):
        plain = cell.replace(",", ".")
    else:
        plain = cell.replace(",", "") if _THOUSANDS.fullmatch(cell) else cell
    try:
        number = float(plain)
    except ValueError:
        remedy = "Names are given as a list: `level: [A1, A2]`."
        raise DataError(f"{cell[:40]!r} in the column {name!r} is not a number.", where=where, remedy=remedy) from None
    return number if number == number else None
