"""From files of raw text to a prepared data set, with a report of what became of every row.

The set is that of ``dlmctl.datasets.dataset``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlmctl.datasets.data_warnings import bare_note, field_notes, known_note, prose_note, unknown_note
from dlmctl.datasets.dataset import Packing, pack_rows, write_split
from dlmctl.datasets.holding_out import hold_out
from dlmctl.datasets.labelled import Annotator, tagged
from dlmctl.datasets.prose import files_of, filled_and_bare
from dlmctl.datasets.readers import Dropped, Format, Record, read_corpus, sniff
from dlmctl.datasets.staging import staged
from dlmctl.errors import DataError, UserError, nearest
from dlmctl.text.tokenizer import (
    SPECIALS,
    SPLITS,
    Tokenizer,
    WordTokenizer,
    unit_of,
)

DATASET_FORMAT = 1
Splitter = Callable[[str], list[str]]
_OWN_FILES = re.compile(r".*\.(ids|offsets)\.npy|.*\.fields\.jsonl|(vocab|words|dataset)\.json|tokenizer")


@dataclass(frozen=True)
class SplitReport:
    """What became of one split. Words are tokens where a Hugging Face tokenizer splits, see ``PrepareReport.unit``.

    Attributes:
        source: name of the file it came from.
        format: the form that the file, or the first of a folder, was read as.
        rows: rows written; with block packing, blocks.
        texts: texts in them.
        words: words in them, START and END not counted.
        unknown: words outside the vocabulary.
        unknown_share: ``unknown / words``.
        lengths: of the texts, in words: ``min``, ``mean``, ``median``, ``p95``, ``p99``, ``max``.
        dropped: rows of the source left out, by reason.
        examples: where the first few of them are.
        cut_off: positions of the last block that was not full (block packing).
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
        notes: what is odd about the data, though it was prepared.
        vocabulary: entries, special tokens included.
        min_count: None where the vocabulary existed before.
        held_out: share of rows; None where a validation file was given.
        fields: names of the fields kept beside the rows.
        unit: what the numbers of words are of: words, or tokens of a Hugging Face tokenizer.
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
    """The usable records of a split and the count of the others; ``bare``: names of files that hold nothing."""

    source: Path
    format: Format
    records: list[Record] = field(default_factory=list)
    dropped: Dropped = field(default_factory=Dropped)
    bare: list[str] = field(default_factory=list)


def prepare(
    train: Path,
    valid: Path | None,
    out: Path,
    *,
    format: Format | None = None,
    text_field: str = "text",
    min_count: int = 11,
    length: int = 64,
    packing: Packing = "pad",
    valid_share: float = 0.05,
    seed: int = 0,
    unique: bool = False,
    tokenizer: Tokenizer | None = None,
    splitting: str | None = None,
    tagger: Annotator | None = None,
    overwrite: bool = False,
) -> PrepareReport:
    """Make a prepared data set with the splits ``train`` and ``valid``, moved into place when it is whole.

    Args:
        train, valid: a file, or a folder of files; ``valid`` None to hold a share of ``train`` out.
        out: the folder to make.
        format: of both files; None to tell it from each.
        text_field: see ``readers.read_corpus``.
        min_count: words seen less often in ``train`` become UNK.
        length: positions of a row, START and END included. Longer texts are dropped (``pad``).
        packing: ``pad`` for one text a row, ``block`` for the joined texts cut into rows of ``length``.
        valid_share, seed: see ``holding_out.hold_out``.
        unique: keep only the first of several equal texts of a file.
        tokenizer: an existing vocabulary; None to make one from ``train``.
        splitting: of raw text into words, in ``SPLITS``; None for that of ``tokenizer``, or E2E's.
        tagger: sentences of words to a label for each word, kept as the field ``upos`` where the source has none.
        overwrite: replace ``out`` if it is a prepared data set.

    Raises:
        DataError: a file cannot be used, nothing usable is left in it, or ``out`` exists.
        UserError: a setting is out of its range.
    """
    _check_settings(min_count, length, valid_share)
    _check_whole_words(tagger, tokenizer, packing)
    _check_target(out, overwrite)
    splitting = _splitting(tokenizer, splitting)
    with staged(out, "data set", lambda: _check_target(out, overwrite)) as staging:
        read = partial(_read, format=format, text_field=text_field, unique=unique, split=SPLITS[splitting])
        first = read(train)
        second = read(valid) if valid else _held_out(first, valid_share, seed)
        if tagger is not None:
            first.records, second.records = tagged(first.records, tagger), tagged(second.records, tagger)
        notes = _notes(first, second)
        vocabulary = tokenizer if tokenizer is not None else _new_vocabulary(first, min_count, splitting)
        vocabulary.save(staging)
        train_rows = _write(staging, "train", first, vocabulary, packing, length)
        splits = {"train": train_rows, "valid": _write(staging, "valid", second, vocabulary, packing, length)}
        least, held_out = min_count if tokenizer is None else None, None if valid else valid_share
        fields, said = _field_names(first, packing), [*_unknown_notes(splits, least), *notes]
        about = packing, length, len(vocabulary), least, held_out, seed, fields, splits, said, unit_of(vocabulary)
        report = PrepareReport(*about)
        _write_report(report, staging)
    return report


def _notes(first: _Texts, second: _Texts) -> list[str]:
    both = [*first.records, *second.records]
    prose = prose_note(first.format, [record.text for record in first.records])
    return [
        *prose,
        *bare_note([*first.bare, *second.bare]),
        *known_note([record.words for record in first.records], [record.words for record in second.records]),
        *field_notes([record.fields for record in both if record.fields]),
    ]


def _check_whole_words(tagger: Annotator | None, tokenizer: Tokenizer | None, packing: Packing) -> None:
    if tagger is not None and (packing == "block" or not isinstance(tokenizer, WordTokenizer | None)):
        what = "labels of words need texts of whole words, one a row."
        raise UserError(what, where="--tags", remedy="Leave it out, or --packing block and --tokenizer.")


def _write_report(report: PrepareReport, folder: Path) -> None:
    about = {"dlmctl_dataset": DATASET_FORMAT, **report.as_dict()}
    (folder / "dataset.json").write_text(json.dumps(about, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _field_names(texts: _Texts, packing: Packing) -> list[str]:
    """Names of the fields kept; blocks keep none."""
    return list(dict.fromkeys(key for record in texts.records for key in record.fields or () if packing == "pad"))


def _unknown_notes(splits: dict[str, SplitReport], min_count: int | None) -> list[str]:
    notes = (unknown_note(name, split.unknown_share, min_count) for name, split in splits.items())
    return [note for note in notes if note is not None]


def _splitting(tokenizer: Tokenizer | None, asked: str | None) -> str:
    """The way of splitting texts that is asked for and goes with the vocabulary."""
    own = tokenizer.splitting if isinstance(tokenizer, WordTokenizer) else None
    if asked is not None and own is not None and asked != own:
        what = f"the vocabulary is one of words that are split as {own!r}, not {asked!r}."
        raise UserError(what, where="--splitting", remedy="Leave it out.")
    if asked is not None and asked not in SPLITS:
        raise UserError(f"there is no splitting {asked!r}.", where="--splitting", remedy=nearest(asked, list(SPLITS)))
    return asked or own or "e2e"


def _new_vocabulary(texts: _Texts, min_count: int, splitting: str) -> WordTokenizer:
    # Over-long texts count as well: whether a word is in the vocabulary should not hang on the length.
    tokenizer = WordTokenizer.from_corpus((record.words for record in texts.records), min_count, splitting)
    if len(tokenizer) == len(SPECIALS):
        raise DataError(
            f"no word occurs {min_count} times.", where=str(texts.source), remedy="Choose a smaller --min-count."
        )
    return tokenizer


def _check_settings(min_count: int, length: int, valid_share: float) -> None:
    if min_count < 1:
        raise UserError(f"the least count of a word is {min_count}.", where="--min-count", remedy="It is 1 or more.")
    if length < 3:
        raise UserError(f"the row length is {length}.", where="--length", remedy="START, a word and END need 3.")
    if not 0 < valid_share < 1:
        raise UserError(f"the share is {valid_share}.", where="--valid-share", remedy="It lies between 0 and 1.")


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError("is a file.", where=str(out), remedy="Name a folder.")
    inside = sorted(path.name for path in out.iterdir())
    strange = [name for name in inside if not _OWN_FILES.fullmatch(name)]
    if strange:
        raise DataError(f"holds other things ({strange[0]}).", where=str(out), remedy="Name a new folder.")
    if inside and not overwrite:
        raise DataError("exists already.", where=str(out), remedy="Name a new folder, or replace it by --overwrite.")


def _read(path: Path, format: Format | None, text_field: str, unique: bool, split: Splitter) -> _Texts:
    files, bare = filled_and_bare(files_of(path))
    chosen = [format or sniff(file, text_field) for file in files]
    texts = _Texts(path, chosen[0], bare=[file.name for file in bare])
    seen: set[tuple[str, ...]] = set()
    for file, form in zip(files, chosen, strict=True):
        texts.dropped.file = file.name if len(files) > 1 else ""
        for record in read_corpus(file, form, text_field=text_field, dropped=texts.dropped, split=split):
            if unique:
                key = tuple(record.words)
                if key in seen:
                    texts.dropped.add("duplicate", record.line)
                    continue
                seen.add(key)
            texts.records.append(record)
    texts.dropped.file = ""
    if not texts.records:
        raise _nothing_left(texts, f"It was read as {chosen[0]}; another form is named by --format.")
    return texts


def _nothing_left(texts: _Texts, remedy: str) -> DataError:
    what = f"no text can be used: {_left_out(texts.dropped) or 'too few'}."
    return DataError(what, where=str(texts.source), remedy=remedy)


def _left_out(dropped: Dropped) -> str:
    reasons = [f"{count} {reason} ({dropped.examples[reason][0]})" for reason, count in dropped.counts.items()]
    return ", ".join(reasons)


def _held_out(texts: _Texts, share: float, seed: int) -> _Texts:
    """Move a random share of the records into a split of their own."""
    held = hold_out(texts.records, share, seed)
    if not held:
        lost = _left_out(texts.dropped)
        what = "has too few different texts to hold some out" + (f"; left out were {lost}" if lost else "")
        raise DataError(f"{what}.", where=str(texts.source))
    chosen = [record for at, record in enumerate(texts.records) if at in held]
    texts.records = [record for at, record in enumerate(texts.records) if at not in held]
    return _Texts(texts.source, texts.format, chosen)


def _write(folder: Path, split: str, texts: _Texts, tokenizer: Tokenizer, packing: Packing, length: int) -> SplitReport:
    encoded, kept = list[list[int]](), list[Record]()
    for record in texts.records:
        of_words = isinstance(tokenizer, WordTokenizer)
        ids = tokenizer.encode(record.words) if of_words else tokenizer.encode_text(record.text)
        if len(ids) == 2:
            texts.dropped.add("empty", record.line)
            continue
        if packing == "pad" and len(ids) > length:
            unit = "words" if of_words else "tokens"
            texts.dropped.add("too long", record.line, f"{len(ids) - 2} {unit}, {length - 2} fit")
            continue
        encoded.append(ids)
        kept.append(record)
    rows = pack_rows(encoded, packing, length)
    if not rows:
        raise _nothing_left(texts, "Choose a larger --length (pad) or give more text (block).")
    with_fields = packing == "pad" and any(record.fields for record in kept)
    write_split(folder, split, rows, [record.fields or {} for record in kept] if with_fields else None)
    words_of = np.array([len(ids) - 2 for ids in encoded])
    unknown = sum(ids.count(tokenizer.unk_id) for ids in encoded)
    return SplitReport(
        source=texts.source.name,
        format=texts.format,
        rows=len(rows),
        texts=len(encoded),
        words=int(words_of.sum()),
        unknown=unknown,
        unknown_share=unknown / int(words_of.sum()),
        lengths=_summary(words_of),
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
