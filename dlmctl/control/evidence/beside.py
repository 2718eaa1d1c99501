"""Evidence beside a model: where its files lie, and that they are those that were counted for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from dlmctl.checkpoint.control_weights import check_control_files, find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.evidence.bag import Bag, load_bag, save_bag
from dlmctl.control.evidence.table import CountTable, fingerprint, load_table, save_table
from dlmctl.control.state import BatchContext
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer


class Writes(Protocol):
    """Evidence of another form, which writes itself."""

    def save(self, path: Path) -> None: ...


Counted = Mapping[str, CountTable | Bag | Writes]
"""Evidence by the names of its files."""


def evidence_file(of: BatchContext[Any] | Pretrained, control: str, file: str, name: str | None = None) -> Path | None:
    """A file of evidence that a control has for a model, None where there is none.

    Args:
        name: of the weights, where a model has several of one control.
    """
    folder = find_control_folder(of.folder, of.model, control, name)
    return folder / file if folder is not None and (folder / file).exists() else None


def count_table_of(path: Path, vocabulary: str) -> CountTable:
    """The counts of a model's words in a file, read once.

    Args:
        vocabulary: as of ``fingerprint_of``.

    Raises:
        ModelError: the file is damaged, or about another vocabulary.
    """
    return _count_table(path, path.stat().st_mtime_ns, vocabulary)


def bag_of(path: Path, vocabulary: str) -> Bag:
    """The weights of a model's words in a file, read once. Arguments and errors as ``count_table_of``."""
    return _bag(path, path.stat().st_mtime_ns, vocabulary)


# A file that was written anew meanwhile is read again.
@lru_cache(maxsize=16)
def _count_table(path: Path, _written: int, vocabulary: str) -> CountTable:
    check_control_files(path.parent)
    return load_table(path, vocabulary)


@lru_cache(maxsize=16)
def _bag(path: Path, _written: int, vocabulary: str) -> Bag:
    check_control_files(path.parent)
    return load_bag(path, vocabulary)


def fingerprint_of(vocabulary: Tokenizer) -> str:
    """The fingerprint of a model's words; of a model of pieces one that no table has."""
    return _fingerprint_of(vocabulary) if isinstance(vocabulary, WordTokenizer) else ""


@lru_cache(maxsize=4)
def _fingerprint_of(vocabulary: WordTokenizer) -> str:
    return fingerprint(sorted(vocabulary.vocabulary, key=vocabulary.vocabulary.__getitem__))


def known_or_negative(words: Sequence[str], vocabulary: WordTokenizer) -> list[int]:
    """Ids of words, -1 for those that are not counted because the vocabulary does not have them."""
    ids = vocabulary.encode(words)[1:-1]
    return [-1 if number == vocabulary.unk_id else number for number in ids]


def save_evidence(counted: Counted, folder: Path) -> None:
    """Write evidence into a folder."""
    for file, found in counted.items():
        if isinstance(found, Bag):
            save_bag(found, folder / file)
        elif isinstance(found, CountTable):
            save_table(found, folder / file)
        else:
            found.save(folder / file)
