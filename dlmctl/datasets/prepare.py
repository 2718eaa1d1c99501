"""Preparation of data sets from files of raw text, with a report on every row.

The format of the result is described in ``dlmctl.datasets.dataset``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlmctl.datasets.data_warnings import bare_note, field_notes, known_note, prose_note, unknown_note
from dlmctl.datasets.dataset import Packing, pack_rows, write_split
from dlmctl.datasets.holding_out import hold_out
from dlmctl.datasets.labelled import Annotator, with_tags
from dlmctl.datasets.prepared_vocabulary import (
    minimum_count,
    splitting_for,
    vocabulary_of,
    with_fewer_unknown,
)
from dlmctl.datasets.prose import files_of, split_off_empty
from dlmctl.datasets.readers import Dropped, Format, Record, read_corpus, sniff
from dlmctl.datasets.staging import staged_folder
from dlmctl.errors import DataError, UserError
from dlmctl.text.tokenizer import SPLITS, Tokenizer, WordTokenizer, unit_of

DATASET_FORMAT = 1
Splitter = Callable[[str], list[str]]
_OWN_FILES = re.compile(r".*\.(ids|offsets)\.npy|.*\.fields\.jsonl|(vocab|words|dataset)\.json|tokenizer")


@dataclass(frozen=True)
class SplitReport:
    """The statistics of one split. Words are tokens with a Hugging Face tokenizer, see ``PrepareReport.unit``.

    Attributes:
        source: name of the source file.
        format: the format that the file, or the first file of a folder, was read as.
        rows: number of rows written; with block packing, of blocks.
        texts: number of texts in them.
        words: number of words in them, without START and END.
        unknown: number of words outside the vocabulary.
        unknown_share: ``unknown / words``.
        lengths: statistics of text lengths in words: ``min``, ``mean``, ``median``, ``p95``, ``p99``, ``max``.
        dropped: number of source rows left out, by reason.
        examples: places of the first few of them, by reason.
        cut_off: positions of the last, incomplete block (block packing).
    """

    source: str
    format: Format
    rows: int
    texts: int
    words: int
    unknown: int
    unknown_share: float
    lengths: dict[str, float]
    dropped: dict[str, int]
    examples: dict[str, list[str]]
    cut_off: int


@dataclass(frozen=True)
class PrepareReport:
    """What was prepared, and how; ``dataset.json`` holds the same.

    Attributes:
        notes: warnings about the data.
        vocabulary: number of entries, including special tokens.
        min_count: of the words of the vocabulary, or of those added to an existing one; None if none were added.
        held_out: share of rows held out; None if a validation file was given.
        fields: names of the fields stored with the rows.
        unit: the unit of word counts: words, or tokens of a Hugging Face tokenizer.
    """

    packing: Packing
    length: int
    vocabulary: int
    min_count: int | None
    held_out: float | None
    seed: int
    fields: list[str]
    splits: dict[str, SplitReport]
    notes: list[str]
    unit: Literal["word", "token"] = "word"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Texts:
    """The usable records of a split, the count of the others, and the names of empty files."""

    source: Path
    format: Format
    records: list[Record] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)
    empty_files: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[list[str]]:
        """The words of all texts, those that are too long too: the vocabulary should not depend on the row length."""
        return [record.words for record in self.records]


def prepare(
    train: str | Path,
    valid: str | Path | None,
    out: str | Path,
    *,
    format: Format | None = None,
    text_field: str = "text",
    min_count: int | None = None,
    length: int = 64,
    packing: Packing = "pad",
    valid_share: float = 0.05,
    seed: int = 0,
    unique: bool = False,
    tokenizer: Tokenizer | None = None,
    add_words: int | None = None,
    splitting: str | None = None,
    tagger: Annotator | None = None,
    overwrite: bool = False,
) -> PrepareReport:
    """Prepare a data set with the splits ``train`` and ``valid``, moved into place when complete.

    Args:
        train, valid: a file, or a folder of files; ``valid`` None to hold out a share of ``train``.
        out, overwrite: the folder to create; whether it may replace a prepared data set.
        format, text_field: format of both files, None to detect it for each; see ``readers.read_corpus``.
        min_count: words that occur less often in ``train`` become UNK; for a new vocabulary only, None for 11.
        length: positions per row, START and END included. Longer texts are dropped (``pad``).
        packing: ``pad`` for one text per row, ``block`` for texts joined and cut into rows of ``length``.
        valid_share, seed: see ``holding_out.hold_out``.
        unique: keep only the first of several equal texts of a file.
        tokenizer: an existing vocabulary; None to make one from ``train``.
        add_words: words of ``train`` that occur at least so often are added to the existing vocabulary; None adds none.
        splitting: how to split raw text into words, in ``SPLITS``; None for that of ``tokenizer``, or E2E's.
        tagger: labels each word of a sentence; the labels are stored as the field ``upos`` if the source has none.

    Raises:
        DataError: a file cannot be used, nothing usable is left in it, or ``out`` exists.
        UserError: a setting is out of range.
    """
    train, out = Path(train), Path(out)
    _check_settings(length, valid_share)
    least = minimum_count(tokenizer, min_count, add_words)
    _check_words(tokenizer, tagger, packing)
    _check_target(out, overwrite)
    splitting = splitting_for(tokenizer, splitting)
    with staged_folder(out, "data set", lambda: _check_target(out, overwrite)) as staging:
        read = partial(_read, format=format, text_field=text_field, unique=unique, split=SPLITS[splitting])
        texts = {"train": read(train)}
        texts["valid"] = read(Path(valid)) if valid else _move_held_out(texts["train"], valid_share, seed)
        _add_tags(texts.values(), tagger)
        notes = _notes(texts["train"], texts["valid"])
        vocabulary = vocabulary_of(texts["train"].sentences, tokenizer, least, splitting, train)
        vocabulary.save(staging)
        splits = {name: _write(staging, name, split, vocabulary, packing, length) for name, split in texts.items()}
        about: dict[str, Any] = {"packing": packing, "length": length, "seed": seed, "unit": unit_of(vocabulary)}
        about |= {"min_count": least, "held_out": None if valid else valid_share, "vocabulary": len(vocabulary)}
        notes = [*_unknown_notes(splits, tokenizer, least), *notes]
        report = PrepareReport(**about, fields=_field_names(texts["train"], packing), splits=splits, notes=notes)
        _write_report(report, staging)
    return report


def _add_tags(splits: Iterable[_Texts], tagger: Annotator | None) -> None:
    if tagger is not None:
        for split in splits:
            split.records = with_tags(split.records, tagger)


def _notes(train: _Texts, valid: _Texts) -> list[str]:
    records = [*train.records, *valid.records]
    return [
        *prose_note(train.format, [record.text for record in train.records]),
        *bare_note([*train.empty_files, *valid.empty_files]),
        *known_note(train.sentences, valid.sentences),
        *field_notes([record.fields for record in records if record.fields]),
    ]


def _check_words(tokenizer: Tokenizer | None, tagger: Annotator | None, packing: Packing) -> None:
    """Check that there are words to tag."""
    if tagger is not None and (packing == "block" or not isinstance(tokenizer, WordTokenizer | None)):
        what = "word labels need texts of whole words, one per row."
        for_tokens = "Leave it out: for texts of tokens, `dlmctl train control` finds the tags itself."
        remedy = "Leave out --packing block." if packing == "block" else for_tokens
        raise UserError(what, where="--tags", remedy=remedy)


def _write_report(report: PrepareReport, folder: Path) -> None:
    contents = {"dlmctl_dataset": DATASET_FORMAT, **report.as_dict()}
    (folder / "dataset.json").write_text(json.dumps(contents, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _field_names(texts: _Texts, packing: Packing) -> list[str]:
    """Names of the stored fields; blocks have none."""
    return list(dict.fromkeys(key for record in texts.records for key in record.fields or () if packing == "pad"))


def _unknown_notes(splits: dict[str, SplitReport], existing: Tokenizer | None, least: int | None) -> list[str]:
    remedy = with_fewer_unknown(existing, least)
    notes = (unknown_note(name, split.unknown_share, remedy) for name, split in splits.items())
    return [note for note in notes if note is not None]


def _check_settings(length: int, valid_share: float) -> None:
    if length < 3:
        raise UserError(f"the row length is {length}.", where="--length", remedy="START, a word and END need 3.")
    if not 0 < valid_share < 1:
        raise UserError(f"the share is {valid_share}.", where="--valid-share", remedy="It must be between 0 and 1.")


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError("is a file.", where=str(out), remedy="Name a folder.")
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if not _OWN_FILES.fullmatch(name)]
    if foreign:
        raise DataError(f"holds other files ({foreign[0]}).", where=str(out), remedy="Name a new folder.")
    if names and not overwrite:
        raise DataError("exists already.", where=str(out), remedy="Name a new folder, or replace it with --overwrite.")


def _read(path: Path, format: Format | None, text_field: str, unique: bool, split: Splitter) -> _Texts:
    files, empty_files = split_off_empty(files_of(path))
    formats = [format or sniff(file, text_field) for file in files]
    texts = _Texts(path, formats[0], empty_files=[file.name for file in empty_files])
    seen: set[tuple[str, ...]] = set()
    for file, file_format in zip(files, formats, strict=True):
        texts.dropped.file = file.name if len(files) > 1 else ""
        for record in read_corpus(file, file_format, text_field=text_field, dropped=texts.dropped, split=split):
            if unique:
                key = tuple(record.words)
                if key in seen:
                    texts.dropped.add("duplicate", record.line)
                    continue
                seen.add(key)
            texts.records.append(record)
    texts.dropped.file = ""
    if not texts.records:
        raise _nothing_usable(texts, f"It was read as {formats[0]}; another format can be given with --format.")
    return texts


def _nothing_usable(texts: _Texts, remedy: str, split: str = "train") -> DataError:
    purpose = " for validation" if split == "valid" else ""
    what = f"no text can be used{purpose}: {_reasons(texts.dropped) or 'too few'}."
    return DataError(what, where=str(texts.source), remedy=remedy)


def _reasons(dropped: Dropped) -> str:
    reasons = [f"{count} {reason} ({dropped.examples[reason][0]})" for reason, count in dropped.counts.items()]
    return ", ".join(reasons)


def _move_held_out(texts: _Texts, share: float, seed: int) -> _Texts:
    """Move a random share of the records to a new split."""
    held_out = hold_out(texts.records, share, seed)
    if not held_out:
        reasons = _reasons(texts.dropped)
        what = "has too few different texts to hold some out" + (f"; left out were {reasons}" if reasons else "")
        raise DataError(f"{what}.", where=str(texts.source))
    records = [record for index, record in enumerate(texts.records) if index in held_out]
    texts.records = [record for index, record in enumerate(texts.records) if index not in held_out]
    return _Texts(texts.source, texts.format, records)


def _write(folder: Path, split: str, texts: _Texts, tokenizer: Tokenizer, packing: Packing, length: int) -> SplitReport:
    encoded, kept = list[list[int]](), list[Record]()
    for record in texts.records:
        uses_words = isinstance(tokenizer, WordTokenizer)
        ids = tokenizer.encode(record.words) if uses_words else tokenizer.encode_text(record.text)
        if len(ids) == 2:
            texts.dropped.add("empty", record.line)
            continue
        if packing == "pad" and len(ids) > length:
            unit = "words" if uses_words else "tokens"
            texts.dropped.add("too long", record.line, f"{len(ids) - 2} {unit}, {length - 2} fit")
            continue
        encoded.append(ids)
        kept.append(record)
    rows = pack_rows(encoded, packing, length)
    if not rows:
        remedy = "Choose a larger --length (pad) or give more text (block)."
        if prose_note(texts.format, [record.text for record in texts.records]):
            remedy = "--format prose makes each sentence a text of its own, or choose a larger --length."
        raise _nothing_usable(texts, remedy, split)
    has_fields = packing == "pad" and any(record.fields for record in kept)
    write_split(folder, split, rows, [record.fields or {} for record in kept] if has_fields else None)
    word_counts = np.array([len(ids) - 2 for ids in encoded])
    unknown = sum(ids.count(tokenizer.unk_id) for ids in encoded)
    return SplitReport(
        source=texts.source.name,
        format=texts.format,
        rows=len(rows),
        texts=len(encoded),
        words=int(word_counts.sum()),
        unknown=unknown,
        unknown_share=unknown / int(word_counts.sum()),
        lengths=_summary(word_counts),
        dropped=texts.dropped.counts,
        examples=texts.dropped.examples,
        cut_off=sum(map(len, encoded)) - sum(map(len, rows)),
    )


def _summary(lengths: np.ndarray) -> dict[str, float]:
    quantiles = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        "min": int(lengths.min()),
        "mean": round(float(lengths.mean()), 2),
        **{name: float(np.quantile(lengths, share)) for name, share in quantiles.items()},
        "max": int(lengths.max()),
    }
