"""Raw text data to records: the E2E and ROCStories releases, plain text, JSON lines, tables, CoNLL-U.

A row that cannot be used is counted with its reason and left out; what makes a whole file unusable is a DataError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dlmctl.datasets.conllu import conllu_sentences
from dlmctl.datasets.lines import filled_lines, json_lines, lines_of, parse_json, plain_suffix
from dlmctl.datasets.meaning_representations import parse_mr, parse_pairs
from dlmctl.datasets.prose import sentences_of
from dlmctl.datasets.sniffing import E2E_COLUMNS, FORMATS, Format, sniff
from dlmctl.datasets.stories import SENTENCES, middles, story
from dlmctl.datasets.tables import delimiter_of, header_cells, parquet_rows, table_rows
from dlmctl.errors import DataError
from dlmctl.text.fields import Value, value_words
from dlmctl.text.spelling import detokenize, split_words

__all__ = ["FORMATS", "Dropped", "Fields", "Format", "Record", "lines_of", "parse_mr", "read_corpus", "sniff"]

Fields = dict[str, Any]
# One row may hold several texts (the sentences of a story).
Texts = list[tuple[str, Fields | None]]
# The field of a CoNLL-U sentence's gold tags, one for each word.
TAGS_FIELD = "upos"
_EXAMPLES = 5


@dataclass(frozen=True)
class Record:
    """One text.

    Attributes:
        words: the text split into words.
        text: the text as written; of a tokenised source, as it would be written.
        fields: what else the source says about it, or None.
        line: where it ends in the file, from 1.
        row: the row that it was cut from together with other texts; None where it is all that a row holds.
    """

    words: list[str]
    text: str
    fields: Fields | None
    line: int
    row: str | None = None


@dataclass
class Dropped:
    """Rows left out: how many for each reason, and where the first few of each are; ``file`` where there are many."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    file: str = ""

    def add(self, reason: str, line: int, why: str = "") -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES:
            place = f"{self.file}, line {line}" if self.file else f"line {line}"
            shown.append(f"{place}: {why[:200]}" if why else place)


def read_corpus(
    path: Path,
    format: Format,
    *,
    text_field: str = "text",
    dropped: Dropped | None = None,
    split: Callable[[str], list[str]] = split_words,
) -> Iterator[Record]:
    """The records of one file, in order.

    Args:
        format: one of ``FORMATS``; ``sniff`` tells it from the file.
        text_field: which key of a JSON-lines object, or column of a table, holds the text; the others become fields.
        dropped: told of every row left out (``empty``, ``unreadable``).
        split: raw text to words, where the source has not split it.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or is a table without the columns of its format.
        UserError: it is Parquet, and pyarrow is not installed.
    """
    dropped = Dropped() if dropped is None else dropped
    if format == "conllu":
        for words, tags, line in conllu_sentences(path):
            yield _record(words, detokenize(words), {TAGS_FIELD: tags}, line)
        return
    rows, parse = _form(path, format, text_field)
    tokenised = format == "e2e"
    for line, row in rows:
        try:
            found = parse(row) if row else [("", None)]
        except ValueError as error:
            dropped.add("unreadable", line, str(error))
            continue
        together = f"{path}:{line}" if len(found) > 1 else None
        for text, fields in found:
            words = text.split() if tokenised else split(text)
            if words:
                as_written = detokenize(words) if tokenised else " ".join(text.split())
                yield _record(words, as_written, fields, line, together)
            else:
                dropped.add("empty", line)


def read_meanings(path: Path) -> list[tuple[Fields, str]]:
    """The meaning representations of a released E2E file with their texts, empty where it has none (``testset.csv``).

    Raises:
        DataError: the file cannot be read, has no column ``mr``, or a row holds none.
    """
    found = []
    for line, row in table_rows(path, ["mr"], fold_case=True):
        if row:
            try:
                found.append((parse_mr(row["mr"] or ""), row.get("ref") or ""))
            except ValueError as error:
                raise DataError(f"{error}.", where=f"{path}:{line}") from None
    return found


def read_sources(path: Path) -> list[Fields]:
    """What each row of a file says, to write texts from: E2E's meaning representations, columns of a table, JSON lines.

    Empty cells and values, and the column or key ``text``, are left out.

    Raises:
        DataError: the file cannot be read, is none of these, or has no rows.
    """
    suffix, first = plain_suffix(path), next((line.text for line in filled_lines(path)), "")
    if suffix in (".csv", ".tsv"):
        if "mr" in map(str.lower, header_cells(first, delimiter_of(path, first))):
            found = [fields for fields, _ in read_meanings(path)]
        else:
            found = [_given(path, line, row) for line, row in table_rows(path, []) if row]
    elif suffix in (".jsonl", ".ndjson"):
        found = [_given(path, line, row) for line, row in json_lines(path)]
    else:
        raise DataError(
            f"{suffix or 'this'} is no table of sources.", where=str(path), remedy=".csv, .tsv and .jsonl are."
        )
    if not found:
        raise DataError("has no rows.", where=str(path))
    return found


def _given(path: Path, line: int, row: Any) -> Fields:
    given = row if isinstance(row, dict) else {}
    found = {name: value for name, value in given.items() if name is not None and name != "text"}
    found = {name: value for name, value in found.items() if isinstance(value, Value) and value_words(value)}
    if not found:
        raise DataError("says nothing to write from.", where=f"{path}:{line}")
    return found


def _record(words: list[str], text: str, fields: Fields | None, line: int, row: str | None = None) -> Record:
    return Record([sys.intern(word) for word in words], text, fields, line, row)  # a corpus repeats few words often


def _form(path: Path, format: Format, text_field: str) -> tuple[Iterator[tuple[int, Any]], Callable[[Any], Texts]]:
    """The rows of a file in this format, and what makes texts of one."""
    by_column = partial(_from_fields, text_field=text_field)
    if format == "e2e-csv":
        return table_rows(path, E2E_COLUMNS, fold_case=True), _from_e2e_row
    if format in ("csv", "tsv"):
        return table_rows(path, [text_field]), lambda row: by_column(_filled(_complete(row), text_field))
    if format == "parquet":
        return parquet_rows(path, [text_field]), by_column
    if format == "roc-csv" or (format == "roc-infill" and sniff(path) == "roc-csv"):
        return table_rows(path, SENTENCES), partial(_from_story, infill=format == "roc-infill", parse=_complete)
    if format in ("roc-jsonl", "roc-infill"):
        return lines_of(path), partial(_from_story, infill=format == "roc-infill", parse=parse_json)
    if format == "jsonl":
        return lines_of(path), lambda line: by_column(_object(line))
    rows = sentences_of(path) if format == "prose" else lines_of(path)
    return rows, _from_e2e_line if format == "e2e" else lambda line: [(line, None)]


def _from_e2e_row(row: Fields) -> Texts:
    return [(_complete(row)["ref"], parse_mr(row["mr"]))]


def _from_e2e_line(line: str) -> Texts:
    left, bars, right = line.partition("||")
    if not bars:
        raise ValueError("not `attribute : value | ...||text`")
    return [(right, parse_pairs(left))]


def _from_story(row: Any, infill: bool, parse: Callable[[Any], Any]) -> Texts:
    told = story(parse(row))
    return list(middles(told)) if infill else [(" ".join(told.sentences), told.fields)]


def _from_fields(row: Fields, text_field: str) -> Texts:
    if text_field not in row:
        raise ValueError(f"no field {text_field!r} among {', '.join(row) or 'none'}")
    text = row.pop(text_field)
    if not isinstance(text, str):
        raise ValueError(f"the field {text_field!r} is not a text")
    return [(text, {name: value for name, value in row.items() if value is not None} or None)]


def _complete(row: Fields) -> Fields:
    if None in row or None in row.values():
        raise ValueError("the number of columns differs from the header's")
    return row


def _filled(row: Fields, text_field: str) -> Fields:
    """A row of a table without its empty cells."""
    return {name: value for name, value in row.items() if name == text_field or value.strip()}


def _object(line: str) -> Fields:
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
