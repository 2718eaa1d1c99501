"""Results as flat rows with one value per column, for tables, data frames and Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from dlmctl.control.check import VERDICT_COLUMNS

Record = Mapping[str, Any]
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}", re.ASCII)
# Columns of every row before those of the controls, and of scored rows after them.
LEADING = ("text", "passed")
# Which of a list of labels, sources or prompts a text is for.
PROMPTED = ("label", "source", "prompt")
FLUENCY_COLUMNS, ACCEPTABILITY_COLUMNS = ("lm_score", "worst_word", "worst_nats"), ("acceptability",)
# Types of the values of a record; all others are text.
KINDS: Mapping[str, type] = {
    "index": int,
    "row": int,
    "passed": bool,
    "rounds": int,
    "seed": int,
    "lm_score": float,
    "worst_nats": float,
    "acceptability": float,
}


class Columns:
    """The columns of flat rows, collected in one pass over the records.

    If a result has the same name as a column of the user's table, the latter gets the prefix ``target_``, repeated
    until the name is unique.
    """

    def __init__(self, targets: Iterable[str] = ()) -> None:
        """Starts with columns of the user's table, in order, whether or not any record fills them."""
        # The types of the cells so far, for each column of the user's table.
        self.targets: dict[str, set[type]] = {name: set() for name in targets}
        # The values that the checks of each control measured.
        self.controls: dict[str, dict[str, None]] = {}
        self.prompted: dict[str, None] = {}
        self.others: dict[str, None] = {}
        self.has_fluency = self.has_acceptability = self.has_rows = False

    def add(self, record: Record) -> None:
        """Add the columns of a record."""
        self.has_rows |= "row" in record
        target_cells = record.get("columns", {})
        if not self.targets.keys() >= target_cells.keys():
            names = _merged_order(list(self.targets), list(target_cells))
            self.targets = {name: self.targets.get(name, set()) for name in names}
        for name, cell in target_cells.items():
            self.targets[name].add(_cell_kind(cell))
        for name, check in record["checks"].items():
            self.controls.setdefault(name, {}).update(dict.fromkeys(check.get("values", ())))
        self.has_fluency |= "lm_score" in record
        self.has_acceptability |= "acceptability" in record
        self.prompted.update(dict.fromkeys(name for name in PROMPTED if name in record))
        scores = (*FLUENCY_COLUMNS, *ACCEPTABILITY_COLUMNS)
        nested = ("index", "row", "columns", "words", "checks", *PROMPTED, *LEADING, *scores)
        self.others.update(dict.fromkeys(name for name in record if name not in nested))

    @classmethod
    def of(cls, records: Iterable[Record], targets: Iterable[str] = ()) -> Columns:
        """The columns of all records, and those of the user's table."""
        columns = cls(targets)
        for record in records:
            columns.add(record)
        return columns

    @cached_property
    def renamed(self) -> dict[str, str]:
        """The name in the results of every column of the user's table."""
        taken = self._result_names()
        used = {*taken, *self.targets}
        renamed = {}
        for name in self.targets:
            renamed[name] = name
            while name in taken and renamed[name] in used:
                renamed[name] = f"target_{renamed[name]}"
            used.add(renamed[name])
        return renamed

    @cached_property
    def kinds(self) -> dict[str, type]:
        """All columns in order, each with the type of its values."""
        first = ("index", *(("row",) if self.has_rows else ()), *self.prompted)
        last = (
            *(FLUENCY_COLUMNS if self.has_fluency else ()),
            *(ACCEPTABILITY_COLUMNS if self.has_acceptability else ()),
            *self.others,
        )
        targets = {self.renamed[name]: _column_kind(kinds) for name, kinds in self.targets.items()}
        return {
            **self._with_kinds(first),
            **targets,
            **self._with_kinds(LEADING),
            **self._check_columns(),
            **self._with_kinds(last),
        }

    def row(self, record: Record) -> dict[str, Any]:
        """A record as a row with these columns; None where it has no value."""
        row: dict[str, Any] = dict.fromkeys(self.kinds)
        for name, value in record.items():
            if name in row and name not in self.renamed.values():
                row[name] = cell_text(value) if name in self.prompted else value
        for name, cell in record.get("columns", {}).items():
            kind = self.kinds[self.renamed[name]]
            row[self.renamed[name]] = cell_text(cell) if kind is str else kind(cell)
        for name, check in record["checks"].items():
            row |= {f"{name}_{part}": check[part] for part in VERDICT_COLUMNS}
            row |= {f"{name}_{value_name}": value for value_name, value in check.get("values", {}).items()}
        return row

    def original_cells(self, record: Record) -> dict[str, str]:
        """The cells of the user's table in a record as text, with their original spelling."""
        return {self.renamed[name]: cell_text(cell) for name, cell in record.get("columns", {}).items()}

    def _check_columns(self) -> dict[str, type]:
        verdict_kinds = dict(zip(VERDICT_COLUMNS, (float, bool, str), strict=True))
        return {
            f"{name}_{part}": kind
            for name, values in self.controls.items()
            for part, kind in {**verdict_kinds, **dict.fromkeys(values, float)}.items()
        }

    def _with_kinds(self, names: Iterable[str]) -> dict[str, type]:
        return {name: KINDS.get(name, str) for name in names}

    def _result_names(self) -> set[str]:
        return {
            "index",
            "row",
            *self.prompted,
            *LEADING,
            *self._check_columns(),
            *FLUENCY_COLUMNS,
            *ACCEPTABILITY_COLUMNS,
            *self.others,
        }


def cell_text(cell: Any) -> str:
    """A cell of a table as text."""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)


def _cell_kind(cell: Any) -> type:
    """The type of a cell; text such as 1.50, with digits after the point, counts as a float."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return int if abs(cell) < 2**63 else str
    if isinstance(cell, str) and _DECIMAL.fullmatch(cell):
        return float
    return type(cell) if isinstance(cell, bool | float) else str


def _column_kind(kinds: set[type]) -> type:
    """The type of a column: text if its cells have no other type in common."""
    if kinds <= {int, float}:
        return float if float in kinds else int if kinds else str
    return next(iter(kinds)) if len(kinds) == 1 else str


def _merged_order(known: list[str], row_names: list[str]) -> list[str]:
    """Columns in the order of the user's table, merged from rows that omit empty cells: a new column is inserted before
    the next known column of its row."""
    for at, name in enumerate(row_names):
        if name not in known:
            position = next((known.index(later) for later in row_names[at + 1 :] if later in known), len(known))
            known.insert(position, name)
    return known
