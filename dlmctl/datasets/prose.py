"""Splitting running text into sentences, and listing the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dlmctl.datasets.lines import COMPRESSED, filled_lines, lines_of, plain_suffix
from dlmctl.errors import DataError

# Suffixes of the files that are read from a folder; a file given by name may have any.
SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".conllu", ".parquet")
# Abbreviations that need not occur in the text; others are learned from it.
ABBREVIATIONS = frozenset("mr mrs ms dr prof st mt jr sr vs etc no e.g i.e a.m p.m".split())


def files_of(path: Path) -> list[Path]:
    """The file, or all files of known formats in a folder and its subfolders, sorted; hidden files are left out.

    Raises:
        DataError: the folder holds none.
    """
    if not os.path.isdir(path):  # unlike Path.is_dir, never raises: reading the file says what is wrong with it
        return [path]
    candidates = [file for file in path.rglob("*") if file.is_file() and plain_suffix(file) in SUFFIXES]
    files = [file for file in candidates if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        suffixes = ", ".join((*SUFFIXES, *(f".txt{suffix}" for suffix in COMPRESSED)))
        raise DataError("is a folder without texts.", where=str(path), remedy=f"Files in it must end in {suffixes}.")
    return sorted(files)


def split_off_empty(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """The non-empty files and the empty ones. A single file counts as non-empty: reading it reports the error."""
    empty = [file for file in files if len(files) > 1 and _is_empty(file)]
    non_empty = [file for file in files if file not in empty]
    return (non_empty, empty) if non_empty else (files, [])


def _is_empty(file: Path) -> bool:
    return plain_suffix(file) != ".parquet" and next(filled_lines(file), None) is None


def sentences_of(path: Path) -> Iterator[tuple[int, str]]:
    """The sentences of running text, each with the last line of its paragraph; blank lines separate paragraphs.

    Sentence boundaries are learned from the file itself, unsupervised (Kiss and Strunk 2006).
    """
    from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

    paragraphs = list(_paragraphs(path))
    trainer = PunktTrainer("\n\n".join(text for _, text in paragraphs))
    parameters = trainer.get_params()
    parameters.abbrev_types |= ABBREVIATIONS
    splitter = PunktSentenceTokenizer(parameters)
    for line, text in paragraphs:
        for sentence in splitter.tokenize(text):
            yield line, sentence


def _paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    lines: list[str] = []
    number = 0
    for number, text in lines_of(path):
        if text:
            lines.append(text)
        elif lines:
            yield number - 1, " ".join(lines)
            lines = []
    if lines:
        yield number, " ".join(lines)
