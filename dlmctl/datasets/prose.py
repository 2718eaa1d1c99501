"""Running text to sentences, and folders of files to their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlmctl.datasets.lines import COMPRESSED, filled_lines, lines_of, plain_suffix
from dlmctl.errors import DataError

# What a file of a folder must end in to be read; --format reads whatever has a name of its own.
SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".conllu", ".parquet")
# Known without having been seen; others are learned from the text.
ABBREVIATIONS = frozenset("mr mrs ms dr prof st mt jr sr vs etc no e.g i.e a.m p.m".split())


def files_of(path: Path) -> list[Path]:
    """A file, or all that a folder and its folders hold of forms that are known, by name; hidden ones are left out.

    Raises:
        DataError: the folder holds none.
    """
    if not path.is_dir():
        return [path]
    inside = [file for file in path.rglob("*") if file.is_file() and plain_suffix(file) in SUFFIXES]
    found = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not found:
        endings = ", ".join((*SUFFIXES, *(f".txt{end}" for end in COMPRESSED)))
        raise DataError("is a folder without texts.", where=str(path), remedy=f"Files in it end in {endings}.")
    return sorted(found)


def filled_and_bare(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """The files with something in them, and those of several that have nothing; a single file says that itself."""
    bare = [file for file in files if len(files) > 1 and _is_bare(file)]
    filled = [file for file in files if file not in bare]
    return (filled, bare) if filled else (files, [])


def _is_bare(file: Path) -> bool:
    return plain_suffix(file) != ".parquet" and next(filled_lines(file), None) is None


def sentences_of(path: Path) -> Iterator[tuple[int, str]]:
    """The sentences of running text, each with the line on which its paragraph ends; blank lines end paragraphs.

    Where sentences end is learned from the file itself, without labels (Kiss and Strunk 2006).
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
