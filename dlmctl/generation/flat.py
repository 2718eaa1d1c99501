"""Results as flat rows: one column a figure, as tables, data frames and Parquet have them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

Record = Mapping[str, Any]
_PRICE = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}", re.ASCII)
# Columns of every row, before and behind those of the controls.
BEFORE = ("text", "passed")
SCORED, READ = ("lm_score", "worst_word", "worst_nats"), ("acceptability",)
# What a record holds, by its kind; all else is text.
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
    """The columns of flat rows, found by looking at every record once.

    A column of the user's table whose name is taken by a result gets ``target_`` in front, as often as it takes to be
    told from all others.
    """

    def __init__(self, targets: Iterable[str] = ()) -> None:
        """Begins with columns of the user's table, in order, whether or not any record fills them."""
        # Of each column of the user's table the kinds of its cells so far.
        self.targets: dict[str, set[type]] = {name: set() for name in targets}
        self.controls: dict[str, None] = {}
        self.others: dict[str, None] = {}
        self.scored = self.read = self.rows = False

    def see(self, record: Record) -> None:
        """Note what a record has."""
        self.rows |= "row" in record
        own = record.get("columns", {})
        if not self.targets.keys() >= own.keys():
            known = _merged(list(self.targets), list(own))
            self.targets = {name: self.targets.get(name, set()) for name in known}
        for name, cell in own.items():
            self.targets[name].add(_kind(cell))
        self.controls.update(dict.fromkeys(record["checks"]))
        self.scored |= "lm_score" in record
        self.read |= "acceptability" in record
        nested = ("index", "row", "columns", "words", "checks", *BEFORE, *SCORED, *READ)
        self.others.update(dict.fromkeys(name for name in record if name not in nested))

    @classmethod
    def of(cls, records: Iterable[Record], targets: Iterable[str] = ()) -> Columns:
        """The columns of all records, and those of the user's table."""
        made = cls(targets)
        for record in records:
            made.see(record)
        return made

    @cached_property
    def renamed(self) -> dict[str, str]:
        """The name here of every column of the user's table."""
        taken = self._taken()
        used = {*taken, *self.targets}
        found = {}
        for name in self.targets:
            found[name] = name
            while name in taken and found[name] in used:
                found[name] = f"target_{found[name]}"
            used.add(found[name])
        return found

    @cached_property
    def kinds(self) -> dict[str, type]:
        """All of them, in order, each with the type of what it holds."""
        before = ("index", *(("row",) if self.rows else ()))
        behind = (*(SCORED if self.scored else ()), *(READ if self.read else ()), *self.others)
        own = {self.renamed[name]: _common(kinds) for name, kinds in self.targets.items()}
        return {**self._named(before), **own, **self._named(BEFORE), **self._verdicts(), **self._named(behind)}

    def row(self, record: Record) -> dict[str, Any]:
        """A record by these columns; None where it has nothing."""
        found: dict[str, Any] = dict.fromkeys(self.kinds)
        for name, value in record.items():
            if name in found and name not in self.renamed.values():
                found[name] = value
        for name, cell in record.get("columns", {}).items():
            kind = self.kinds[self.renamed[name]]
            found[self.renamed[name]] = written(cell) if kind is str else kind(cell)
        for name, check in record["checks"].items():
            found |= {f"{name}_{part}": check[part] for part in ("score", "passed", "why")}
        return found

    def spelled(self, record: Record) -> dict[str, str]:
        """What a record has of the user's table as text, spelled as it was there."""
        return {self.renamed[name]: written(cell) for name, cell in record.get("columns", {}).items()}

    def _verdicts(self) -> dict[str, type]:
        parts = (("score", float), ("passed", bool), ("why", str))
        return {f"{name}_{part}": kind for name in self.controls for part, kind in parts}

    def _named(self, names: Iterable[str]) -> dict[str, type]:
        return {name: KINDS.get(name, str) for name in names}

    def _taken(self) -> set[str]:
        return {"index", "row", *BEFORE, *self._verdicts(), *SCORED, *READ, *self.others}


def written(cell: Any) -> str:
    """A cell of a table as text."""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)


def _kind(cell: Any) -> type:
    """What a cell is; of text, whether it is a number with digits behind its point, such as 1.50."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return int if abs(cell) < 2**63 else str
    if isinstance(cell, str) and _PRICE.fullmatch(cell):
        return float
    return type(cell) if isinstance(cell, bool | float) else str


def _common(kinds: set[type]) -> type:
    """The kind of a column: text where its cells have no other one in common."""
    if kinds <= {int, float}:
        return float if float in kinds else int if kinds else str
    return next(iter(kinds)) if len(kinds) == 1 else str


def _merged(known: list[str], own: list[str]) -> list[str]:
    """Columns in the order of the user's table, of which a row has those whose cells are not empty: what is new comes
    before that which stands behind it in its row."""
    for at, name in enumerate(own):
        if name not in known:
            behind = next((known.index(later) for later in own[at + 1 :] if later in known), len(known))
            known.insert(behind, name)
    return known
