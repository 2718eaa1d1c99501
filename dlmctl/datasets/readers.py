"""Raw text data to records: the E2E and ROCStories releases, plain text, JSON lines.

A row that cannot be used is counted with its reason and left out; what makes a whole file unusable is a DataError.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from dlmctl.errors import DataError, nearest
from dlmctl.text.spelling import detokenize, split_words

Format = Literal["e2e-csv", "e2e", "roc-csv", "roc-jsonl", "roc-infill", "text", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
Fields = dict[str, Any]

E2E_COLUMNS = ["mr", "ref"]
SENTENCES = [f"sentence{n}" for n in range(1, 6)]
ROC_COLUMNS = ["storyid", "storytitle", *SENTENCES]

# The released E2E files and the tokenised form name the same fields differently.
_E2E_NAMES = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}
_MR_PART = re.compile(r"\s*([^,\[\]]+?)\s*\[([^\[\]]*)\]\s*(?:,|$)")
# Where one sentence ends and the next begins with a capital or a figure; not after "Mr.".
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][\"'\u201d]))(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)"
    r"\s+(?=[\"'\u201c]?[A-Z0-9])"
)
_EXAMPLES = 5
_SNIFFED_LINES = 20


@dataclass(frozen=True)
class Record:
    """One text.

    Attributes:
        words: the text split into words.
        text: the text as written; of a tokenised source, as it would be written.
        fields: what else the source says about it, or None.
        line: where it ends in the file, from 1.
    """

    words: list[str]
    text: str
    fields: Fields | None
    line: int


@dataclass
class Dropped:
    """Rows left out: how many for each reason, and where the first few of each are."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, line: int, why: str = "") -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES:
            shown.append(f"line {line}: {why}" if why else f"line {line}")


def read_corpus(
    path: Path, format: Format, *, text_field: str = "text", dropped: Dropped | None = None
) -> Iterator[Record]:
    """The records of one file, in order.

    Args:
        format: one of ``FORMATS``; ``sniff`` tells it from the file.
        text_field: which key of a JSON-lines object holds the text; the other keys become fields.
        dropped: told of every row left out (``empty``, ``unreadable``).

    Raises:
        DataError: the file cannot be read, is not UTF-8, or is CSV without the columns of its format.
    """
    dropped = Dropped() if dropped is None else dropped
    infill = format == "roc-infill"
    if infill:
        format = "roc-csv" if path.suffix.lower() == ".csv" else "roc-jsonl"
    parse = _PARSERS[format] if format != "jsonl" else partial(_from_json_object, text_field=text_field)
    tokenised = format == "e2e"
    columns = {"e2e-csv": E2E_COLUMNS, "roc-csv": SENTENCES}.get(format)
    for line, row in _csv_rows(path, columns) if columns else lines_of(path):
        try:
            found = parse(row) if row else ("", None)
            examples = _middles(found[0]) if infill and row else [found]
        except ValueError as error:
            dropped.add("unreadable", line, str(error))
            continue
        for text, fields in examples:
            words = text.split() if tokenised else split_words(text)
            if not words:
                dropped.add("empty", line)
                continue
            words = [sys.intern(word) for word in words]  # a corpus repeats few words often
            yield Record(words, detokenize(words) if tokenised else " ".join(text.split()), fields, line)


def sniff(path: Path) -> Format:
    """The format of a file, told from its name and first lines.

    Raises:
        DataError: the file cannot be read, or calls itself CSV or JSON and is no known form of it.
    """
    first: list[str] = []
    for _, text in lines_of(path):
        if text:
            first.append(text)
        if len(first) == _SNIFFED_LINES:
            break
    if not first:
        raise DataError("is empty.", where=str(path), remedy="Give a file with at least one text.")
    header = [column.strip() for column in next(csv.reader([first[0]]), [])]
    if set(header) >= set(E2E_COLUMNS):
        return "e2e-csv"
    if set(header) >= set(SENTENCES):
        return "roc-csv"
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        raise _wrong_columns(path, header, [E2E_COLUMNS, ROC_COLUMNS])
    try:
        value = json.loads(first[0])
    except ValueError:
        value = None
    if isinstance(value, dict):
        return "roc-jsonl" if SENTENCES[0] in value or "sentences" in value else "jsonl"
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "roc-jsonl"
    if suffix in (".json", ".jsonl", ".ndjson"):
        raise DataError(
            "the first line is neither a JSON object nor a list of sentences.",
            where=f"{path}:1",
            remedy="Write one JSON object a line, or name the format with --format.",
        )
    tokenised = sum(" : " in text.partition("||")[0] and "||" in text for text in first)
    return "e2e" if 2 * tokenised > len(first) else "text"


def parse_mr(mr: str) -> dict[str, str]:
    """Fields of a released E2E meaning representation, under the names and in the words of the tokenised form.

    >>> parse_mr("name[Blue Door], priceRange[£20-25]")
    {'name': 'Blue Door', 'price': '£ 20 - 25'}

    Raises:
        ValueError: it is not a list of ``field[value]``.
    """
    fields, at = dict[str, str](), 0
    while at < len(mr):
        part = _MR_PART.match(mr, at)
        if part is None:
            raise ValueError(f"not field[value] at {mr[at : at + 30]!r}")
        fields[_E2E_NAMES.get(part[1], part[1])] = " ".join(split_words(part[2]))
        at = part.end()
    if not fields:
        raise ValueError("the meaning representation is empty")
    return fields


def _from_e2e_row(row: Fields) -> tuple[str, Fields]:
    return _complete(row)["ref"], parse_mr(row["mr"])


def _from_e2e_line(line: str) -> tuple[str, Fields]:
    left, bars, right = line.partition("||")
    pairs = [pair.partition(" : ") for pair in left.split(" | ")]
    if not bars or not all(colon for _, colon, _ in pairs):
        raise ValueError("not `attribute : value | ...||text`")
    return right, {name.strip(): value.strip() for name, _, value in pairs}


def _complete(row: Fields) -> Fields:
    # csv.DictReader puts what is over under None and None for what is missing.
    if None in row or None in row.values():
        raise ValueError("the number of columns differs from the header's")
    return row


def _from_story_row(row: Fields) -> tuple[str, Fields]:
    sentences = row.get("sentences", [row[name] for name in SENTENCES if name in row])
    return _joined(sentences, len(SENTENCES)), row


def _from_story_json(line: str) -> tuple[str, Fields | None]:
    value = _json(line)
    return _from_story_row(value) if isinstance(value, dict) else (_joined(value), None)


def _middles(story: str) -> list[tuple[str, Fields]]:
    """Each sentence of a story but first and last, with its neighbours as the fields ``before`` and ``after``."""
    sentences = _SENTENCE_END.split(story)
    if len(sentences) < 3:
        raise ValueError("fewer than three sentences")
    return [
        (middle, {"before": before, "after": after})
        for before, middle, after in zip(sentences, sentences[1:], sentences[2:], strict=False)
    ]


def _joined(sentences: object, count: int | None = None) -> str:
    if not isinstance(sentences, list) or not all(isinstance(part, str) for part in sentences):
        raise ValueError("not a list of sentences")
    if count is not None and (len(sentences) != count or not all(part.strip() for part in sentences)):
        raise ValueError("not five sentences")
    return " ".join(sentences)


def _from_json_object(line: str, text_field: str = "text") -> tuple[str, Fields | None]:
    value = _json(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if text_field not in value:
        raise ValueError(f"no field {text_field!r} among {', '.join(value) or 'none'}")
    text = value.pop(text_field)
    if not isinstance(text, str):
        raise ValueError(f"the field {text_field!r} is not a text")
    return text, value or None


def _json(line: str) -> Any:
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()  # an escaped half of a surrogate pair could not be written
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    return value


_PARSERS: dict[str, Callable[[Any], tuple[str, Fields | None]]] = {
    "e2e-csv": _from_e2e_row,
    "e2e": _from_e2e_line,
    "roc-csv": lambda row: _from_story_row(_complete(row)),
    "roc-jsonl": _from_story_json,
    "jsonl": _from_json_object,
    "text": lambda line: (line, None),
}


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without the white space around them."""
    for number, text in _raw_lines(path):
        yield number, text.strip()


def _csv_rows(path: Path, columns: list[str]) -> Iterator[tuple[int, Fields]]:
    """Rows of a CSV file with a header, each with the number of its last line."""
    # Strict, or one quote left open would swallow the rest of the file as one row.
    reader = csv.DictReader((text for _, text in _raw_lines(path)), strict=True)
    try:
        header = [column.strip() for column in reader.fieldnames or []]
        if not set(columns) <= set(header):
            raise _wrong_columns(path, header, [columns])
        reader.fieldnames = header
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        start = reader.line_num + 1  # of the row at fault: the number is that of the row before
        raise DataError(f"is not CSV: {error}.", where=f"{path}:{start}", remedy="A quote may be left open.") from None


def _raw_lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except FileNotFoundError:
        known = [other.name for other in path.parent.glob("*") if other.is_file()]
        remedy = nearest(path.name, sorted(known)) if known else "Check the path."
        raise DataError("no such file.", where=str(path), remedy=remedy) from None
    except IsADirectoryError:
        raise DataError("is a folder.", where=str(path), remedy="Give one file of it.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"is not UTF-8 (byte 0x{error.object[error.start]:02x}).",
            where=f"{path}:{number}",
            remedy="Convert it, for example with `iconv -f latin1 -t utf-8`.",
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.", where=str(path)) from None


def _wrong_columns(path: Path, found: list[str], forms: list[list[str]]) -> DataError:
    return DataError(
        f"the columns are {', '.join(found) or 'missing'}.",
        where=f"{path}:1",
        remedy=f"They should be {' or '.join(','.join(form) for form in forms)}; give other data as JSON lines.",
    )
