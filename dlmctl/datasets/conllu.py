"""CoNLL-U files: one word per line, with its tags, in ten tab-separated columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dlmctl.datasets.lines import lines_of
from dlmctl.errors import DataError

COLUMNS = 10
# Taggers and data sets need only the number, the form and the UPOS tag.
_MIN_COLUMNS = 4


class TaggedSentence(NamedTuple):
    """The words of a sentence, their UPOS tags (``_`` for none) and the number of its last line."""

    words: list[str]
    tags: list[str]
    line: int = 0


def is_conllu_line(text: str) -> bool:
    """Whether a line is a word line of CoNLL-U."""
    cells = text.split("\t")
    return len(cells) == COLUMNS and cells[0].partition("-")[0].partition(".")[0].isdigit()


def conllu_sentences(path: Path) -> Iterator[TaggedSentence]:
    """The sentences of a CoNLL-U file; lines of multiword tokens (``3-4``) and empty nodes (``3.1``) are skipped.

    Raises:
        DataError: the file cannot be read, or a line is not CoNLL-U.
    """
    words: list[str] = []
    tags: list[str] = []
    number = 0
    for number, text in lines_of(path):
        if not text:
            if words:
                yield TaggedSentence(words, tags, number - 1)
            words, tags = [], []
        elif not text.startswith("#"):
            cells = text.split("\t")
            if len(cells) < _MIN_COLUMNS or not cells[0][:1].isdigit():
                raise DataError("is not a line of CoNLL-U.", where=f"{path}:{number}")
            if cells[0].isdigit():
                words.append(cells[1])
                tags.append(cells[3])
    if words:
        yield TaggedSentence(words, tags, number)
