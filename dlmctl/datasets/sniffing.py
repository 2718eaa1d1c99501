"""Detection of a text file's format from its name and first lines."""

from __future__ import annotations

import stat
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from dlmctl.datasets.conllu import is_conllu_line
from dlmctl.datasets.lines import COMPRESSED, filled_lines, parse_json, plain_suffix
from dlmctl.datasets.stories import SENTENCES
from dlmctl.datasets.tables import delimiter_of, header_cells, wrong_columns
from dlmctl.errors import DataError

Format = Literal[
    "e2e-csv", "e2e", "roc-csv", "roc-jsonl", "roc-infill", "text", "prose", "jsonl", "csv", "tsv", "conllu", "parquet"
]
FORMATS: tuple[Format, ...] = get_args(Format)

E2E_COLUMNS = ["mr", "ref"]
ROC_COLUMNS = ["storyid", "storytitle", *SENTENCES]
_SNIFFED_LINES = 20
# Formats with a structure of their own, which would be rubbish as plain text.
_SPREADSHEETS = (".xls", ".xlsx", ".ods")
_OTHER_SUFFIXES = (
    ".yaml .yml .toml .ini .cfg .xml .html .htm .rst .tex .md .pdf .doc .docx .odt .rtf .zip .tar .tgz"
    " .7z .zst .npz .npy .pt .pth .bin .safetensors .pkl .pickle .py .ipynb .db .sqlite .arrow .feather .conll .ptb"
).split()


def sniff(path: Path, text_field: str = "text") -> Format:
    """The format of a file.

    Args:
        text_field: the column of a table that holds the texts.

    Raises:
        DataError: the file cannot be read, or its format is unknown.
    """
    _refuse_pipes(path)
    suffix = plain_suffix(path)
    if suffix == ".parquet":
        if path.suffix.lower() in COMPRESSED:
            raise DataError(
                "is compressed Parquet.", where=str(path), remedy="Unpack it: Parquet has its own compression."
            )
        return "parquet"
    if suffix in _SPREADSHEETS:
        remedy = "Save its sheet as `CSV UTF-8`; the first line must name the columns."
        raise DataError("is a spreadsheet.", where=str(path), remedy=remedy)
    if suffix in _OTHER_SUFFIXES:
        raise DataError(
            f"{suffix} is not a known format of texts.",
            where=str(path),
            remedy=f"Known: {', '.join(FORMATS)}. If it holds one text per line, give --format text.",
        )
    lines = [line.text for line in islice(filled_lines(path), _SNIFFED_LINES)]
    if not lines:
        raise DataError("is empty.", where=str(path), remedy="Give a file with at least one text.")
    if suffix == ".conllu" or is_conllu_line(next((text for text in lines if not text.startswith("#")), "")):
        return "conllu"
    table = _table_format(path, suffix, lines[0], text_field)
    return table or _json_format(path, suffix, lines[0]) or _text_format(lines)


def _refuse_pipes(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it reports the error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DataError("is not a file.", where=str(path), remedy="It is read more than once: save it as a file first.")


def _table_format(path: Path, suffix: str, first_line: str, text_field: str) -> Format | None:
    header = header_cells(first_line, delimiter_of(path, first_line))
    lower_case = [name.lower() for name in header]
    if set(lower_case) >= set(E2E_COLUMNS):
        return "e2e-csv"
    if set(header) >= set(SENTENCES):
        return "roc-csv"
    if suffix not in (".csv", ".tsv"):
        return None
    if text_field in header:
        return "tsv" if suffix == ".tsv" else "csv"
    if "mr" in lower_case:
        raise DataError(
            "holds meaning representations without texts, from which nothing can be learned.",
            where=str(path),
            remedy="They are sources: give the file to `dlmctl evaluate source --data`.",
        )
    raise wrong_columns(path, header, [E2E_COLUMNS, ROC_COLUMNS, [text_field]])


def _json_format(path: Path, suffix: str, first_line: str) -> Format | None:
    try:
        value = parse_json(first_line)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return "roc-jsonl" if SENTENCES[0] in value or "sentences" in value else "jsonl"
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "roc-jsonl"
    if suffix in (".json", ".jsonl", ".ndjson") and first_line.lstrip().startswith("["):
        remedy = f"Write one object per line: `jq -c '.[]' {path.name} > new.jsonl`, or in pandas `lines=True`."
        raise DataError("is a JSON array.", where=str(path), remedy=remedy)
    if suffix in (".json", ".jsonl", ".ndjson"):
        raise DataError(
            "the first line is neither a JSON object nor a list of sentences.",
            where=f"{path}:1",
            remedy="Write one JSON object per line, or give the format with --format.",
        )
    return None


def _text_format(lines: list[str]) -> Format:
    tokenised = sum(" : " in text.partition("||")[0] and "||" in text for text in lines)
    return "e2e" if 2 * tokenised > len(lines) else "text"
