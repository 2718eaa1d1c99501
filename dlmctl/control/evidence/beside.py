"""Evidence files of a model: where they are, and whether they belong to its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from dlmctl.checkpoint.control_weights import check_control_files, find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.evidence.bag import Bag, load_bag, save_bag
from dlmctl.control.evidence.table import DIGITS, CountTable, fingerprint, load_table, save_table
from dlmctl.control.state import BatchContext
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer


class SavableEvidence(Protocol):
    """Evidence of another type, which saves itself."""

    def save(self, path: Path) -> None: ...


EvidenceFiles = Mapping[str, CountTable | Bag | SavableEvidence]
"""Evidence by file name."""


def evidence_file(
    source: BatchContext[Any] | Pretrained, control: str, file: str, name: str | None = None
) -> Path | None:
    """The path of a control's evidence file for a model; None if there is none.

    Args:
        source: the model, or a batch drawn from it.
        name: name of the weights, if the model has several for the control.
    """
    folder = find_control_folder(source.folder, source.model, control, name)
    return folder / file if folder is not None and (folder / file).exists() else None


def count_table_of(path: Path, vocabulary: str) -> CountTable:
    """Load the counts of a model's words from a file; cached.

    Args:
        vocabulary: fingerprint from ``fingerprint_of``.

    Raises:
        ModelError: the file is damaged, or for another vocabulary.
    """
    return _count_table(path, path.stat().st_mtime_ns, vocabulary)


def bag_of(path: Path, vocabulary: str) -> Bag:
    """Load the weights of a model's words from a file; cached. Arguments and errors as for ``count_table_of``."""
    return _bag(path, path.stat().st_mtime_ns, vocabulary)


# The modification time is part of the key, so that a file is loaded again after it was rewritten.
@lru_cache(maxsize=16)
def _count_table(path: Path, _mtime_ns: int, vocabulary: str) -> CountTable:
    check_control_files(path.parent)
    return load_table(path, vocabulary)


@lru_cache(maxsize=16)
def _bag(path: Path, _mtime_ns: int, vocabulary: str) -> Bag:
    check_control_files(path.parent)
    return load_bag(path, vocabulary)


@lru_cache(maxsize=4)
def fingerprint_of(vocabulary: Tokenizer) -> str:
    """The fingerprint of a model's words, or of its tokens and how text becomes them."""
    if isinstance(vocabulary, HuggingFaceTokenizer):
        return vocabulary.digest[:DIGITS]
    return fingerprint([vocabulary.token(index) for index in range(len(vocabulary))])


def ids_or_negative(words: Sequence[str], vocabulary: Tokenizer) -> list[int]:
    """The ids of words, or of their tokens; -1 for what is outside the vocabulary, and is not counted."""
    ids = vocabulary.encode(words)[1:-1]
    return [-1 if word_id == vocabulary.unk_id else word_id for word_id in ids]


def save_evidence(counted: EvidenceFiles, folder: Path) -> None:
    """Write evidence into a folder."""
    for file, evidence in counted.items():
        if isinstance(evidence, Bag):
            save_bag(evidence, folder / file)
        elif isinstance(evidence, CountTable):
            save_table(evidence, folder / file)
        else:
            evidence.save(folder / file)
