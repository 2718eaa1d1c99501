"""Reading raw text data as records: the E2E and ROCStories releases, plain text, JSON lines, tables, CoNLL-U.

Unusable rows are left out and counted by reason; a file that is unusable as a whole raises DataError.
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
from dlmctl.datasets.stories import SENTENCES, middle_sentences, parse_story
from dlmctl.datasets.tables import delimiter_of, header_cells, parquet_rows, table_rows
from dlmctl.errors import DataError
from dlmctl.text.fields import Value, value_words
from dlmctl.text.spelling import detokenize, split_words

__all__ = ["FORMATS", "Dropped", "Fields", "Format", "Record", "lines_of", "parse_mr", "read_corpus", "sniff"]

Fields = dict[str, Any]
# The texts of one row with their fields: several for the sentences of a story.
Texts = list[tuple[str, Fields | None]]
# The field with a CoNLL-U sentence's gold tags, one per word.
TAGS_FIELD = "upos"
_MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Record:
    """One text.

    Attributes:
        words: the text split into words.
        text: the text as written; for a tokenised source, detokenised.
        fields: other fields of the source, or None.
        line: its last line in the file, from 1.
        row: the row that it was cut from together with other texts; None if it is the row's only text.
    """

    words: list[str]
    text: str
    fields: Fields | None
    line: int
    row: str | None = None


@dataclass
class Dropped:
    """Rows left out: the count by reason, and the places of the first few; ``file`` is named if there are several."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    file: str = ""

    def add(self, reason: str, line: int, detail: str = "") -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MAX_EXAMPLES:
            place = f"{self.file}, line {line}" if self.file else f"line {line}"
            examples.append(f"{place}: {detail[:200]}" if detail else place)


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
        format: one of ``FORMATS``; ``sniff`` detects it.
        text_field: the key of a JSON-lines object, or the column of a table, with the text; the others become fields.
        dropped: collects the rows left out (``empty``, ``unreadable``).
        split: splits raw text into words, unless the source is tokenised.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or is a table without the columns of its format.
        UserError: it is Parquet, and pyarrow is not installed.
    """
    dropped = Dropped() if dropped is None else dropped
    if format == "conllu":
        for words, tags, line in conllu_sentences(path):
            yield _record(words, detokenize(words), {TAGS_FIELD: tags}, line)
        return
    rows, parse = _rows_and_parser(path, format, text_field)
    is_tokenised = format == "e2e"
    for line, row in rows:
        try:
            texts = parse(row) if row else [("", None)]
        except ValueError as error:
            dropped.add("unreadable", line, str(error))
            continue
        shared_row = f"{path}:{line}" if len(texts) > 1 else None
        for text, fields in texts:
            words = text.split() if is_tokenised else split(text)
            if words:
                as_written = detokenize(words) if is_tokenised else " ".join(text.split())
                yield _record(words, as_written, fields, line, shared_row)
            else:
                dropped.add("empty", line)


def read_meanings(path: Path) -> list[tuple[Fields, str]]:
    """The meaning representations of a released E2E file with their texts, which may be empty (``testset.csv``).

    Raises:
        DataError: the file cannot be read, has no column ``mr``, or a row has no meaning representation.
    """
    meanings = []
    for line, row in table_rows(path, ["mr"], fold_case=True):
        if row:
            try:
                meanings.append((parse_mr(row["mr"] or ""), row.get("ref") or ""))
            except ValueError as error:
                raise DataError(f"{error}.", where=f"{path}:{line}") from None
    return meanings


def read_sources(path: Path) -> list[Fields]:
    """The fields of each row, to write texts from: E2E's meaning representations, columns of a table, or JSON lines.

    Empty cells and values, and the column or key ``text``, are left out.

    Raises:
        DataError: the file cannot be read, has another format, or has no rows.
    """
    suffix, first = plain_suffix(path), next((line.text for line in filled_lines(path)), "")
    if suffix in (".csv", ".tsv"):
        if "mr" in map(str.lower, header_cells(first, delimiter_of(path, first))):
            sources = [fields for fields, _ in read_meanings(path)]
        else:
            sources = [_source_fields(path, line, row) for line, row in table_rows(path, []) if row]
    elif suffix in (".jsonl", ".ndjson"):
        sources = [_source_fields(path, line, row) for line, row in json_lines(path)]
    else:
        what = f"{suffix or 'this'} is not a table of sources."
        raise DataError(what, where=str(path), remedy="Use .csv, .tsv or .jsonl.")
    if not sources:
        raise DataError("has no rows.", where=str(path))
    return sources


def _source_fields(path: Path, line: int, row: Any) -> Fields:
    row = row if isinstance(row, dict) else {}
    fields = {name: value for name, value in row.items() if name is not None and name != "text"}
    fields = {name: value for name, value in fields.items() if isinstance(value, Value) and value_words(value)}
    if not fields:
        raise DataError("has no values to write a text from.", where=f"{path}:{line}")
    return fields


def _record(words: list[str], text: str, fields: Fields | None, line: int, row: str | None = None) -> Record:
    return Record([sys.intern(word) for word in words], text, fields, line, row)  # saves memory: words repeat often


def _rows_and_parser(
    path: Path, format: Format, text_field: str
) -> tuple[Iterator[tuple[int, Any]], Callable[[Any], Texts]]:
    """The rows of a file in this format, and the function that makes texts of a row."""
    by_column = partial(_from_fields, text_field=text_field)
    if format == "e2e-csv":
        return table_rows(path, E2E_COLUMNS, fold_case=True), _from_e2e_row
    if format in ("csv", "tsv"):
        return table_rows(path, [text_field]), lambda row: by_column(_without_empty(_complete(row), text_field))
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
    story = parse_story(parse(row))
    return list(middle_sentences(story)) if infill else [(" ".join(story.sentences), story.fields)]


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


def _without_empty(row: Fields, text_field: str) -> Fields:
    """A row of a table without its empty cells."""
    return {name: value for name, value in row.items() if name == text_field or value.strip()}


def _object(line: str) -> Fields:
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
