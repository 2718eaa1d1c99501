"""Prepared data sets: rows of word ids in one memory-mapped array, and batches of them.

A folder holds ``vocab.json``, ``dataset.json`` and, per split, ``SPLIT.ids.npy`` (all rows end to end),
``SPLIT.offsets.npy`` (where each row starts) and, if the source had fields, ``SPLIT.fields.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlmctl.datasets.lines import json_lines
from dlmctl.errors import DataError, short_message
from dlmctl.text.files import require_file
from dlmctl.text.saved_tokenizer import load_tokenizer
from dlmctl.text.tokenizer import Tokenizer

Packing = Literal["pad", "block"]
_AGAIN = "Prepare it again."


@dataclass(frozen=True)
class Split:
    """Rows of word ids: row i is ``ids[offsets[i] : offsets[i + 1]]``."""

    ids: np.ndarray
    offsets: np.ndarray
    fields: Path | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Positions of each row, START and END included."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def spread(self, max_rows: int) -> np.ndarray:
        """The numbers of at most ``max_rows`` rows, spread evenly over the split."""
        return np.unique(np.linspace(0, len(self) - 1, min(max_rows, len(self))).astype(int))

    def iter_fields(self) -> Iterator[dict[str, Any]]:
        """The source fields of every row, in order, one row at a time.

        Raises:
            DataError: this split was prepared without fields, or they are damaged.
        """
        if self.fields is None or not self.fields.exists():
            remedy = "Prepare it from one that has them, such as JSON lines; tags of words come with --tags."
            raise DataError("this data set was prepared from a source without fields.", remedy=remedy)
        require_file(self.fields, error=DataError, remedy=_AGAIN)
        count = 0
        for number, value in json_lines(self.fields):
            if not isinstance(value, dict):
                raise DataError("is not a JSON object of fields.", where=f"{self.fields}:{number}", remedy=_AGAIN)
            count += 1
            yield value
        if count != len(self):
            what = f"holds the fields of {count} rows, but the split has {len(self)}."
            raise DataError(what, where=str(self.fields), remedy=_AGAIN)

    def read_fields(self) -> list[dict[str, Any]]:
        """``iter_fields`` as a list."""
        return list(self.iter_fields())


def write_split(
    folder: Path, split: str, rows: Sequence[Sequence[int]], fields: Sequence[dict[str, Any]] | None = None
) -> None:
    """Write one split of a prepared data set into ``folder``."""
    lengths = [len(row) for row in rows]
    largest = max((max(row) for row in rows if len(row)), default=0)
    flat = np.fromiter((index for row in rows for index in row), np.uint16 if largest < 2**16 else np.uint32)
    np.save(folder / f"{split}.ids.npy", flat)
    np.save(folder / f"{split}.offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    if fields is not None:
        lines = (json.dumps(record, ensure_ascii=False) for record in fields)
        (folder / f"{split}.fields.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def pack_rows(sentences: Sequence[list[int]], packing: Packing, length: int) -> list[list[int]]:
    """Rows of at most ``length`` ids: one sentence each (``pad``), or the joined sentences cut up (``block``)."""
    if packing == "pad":
        return [list(ids) for ids in sentences]
    joined = [index for ids in sentences for index in ids]
    return [joined[start : start + length] for start in range(0, len(joined) - length + 1, length)]


def require_split(folder: Path, split: str) -> tuple[Path, Path]:
    """The files of a split's ids and offsets. Called before the vocabulary is read, as its message is the clearest.

    Raises:
        DataError: the folder is not a prepared data set, or lacks this split.
    """
    ids, offsets = folder / f"{split}.ids.npy", folder / f"{split}.offsets.npy"
    if not folder.is_dir():
        raise DataError("no such folder.", where=str(folder), remedy="Make it with `dlmctl data prepare`.")
    if not (ids.exists() and offsets.exists()):
        raise DataError(f"holds no {split!r} split.", where=str(folder), remedy="Make it with `dlmctl data prepare`.")
    return ids, offsets


def load_split(folder: Path, split: str, vocabulary: Tokenizer | None = None) -> Split:
    """Memory-map one split.

    Args:
        vocabulary: the vocabulary to check the rows against; None checks nothing.

    Raises:
        DataError: the folder is not a prepared data set, lacks this split, or a file of it is damaged.
    """
    ids, offsets = require_split(folder, split)
    fields = folder / f"{split}.fields.jsonl"
    starts = _integers(offsets)
    rows = _integers(ids, "r")
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(rows) or (np.diff(starts.astype(np.int64)) < 0).any():
        raise DataError(f"damaged data set: does not fit {ids.name}.", where=str(offsets), remedy=_AGAIN)
    if vocabulary is not None and len(rows):
        for word_id in (int(rows.min()), int(rows.max())):
            if not 0 <= word_id < len(vocabulary):
                what = f"damaged data set: holds the word id {word_id}, but the vocabulary has {len(vocabulary)}."
                raise DataError(what, where=str(ids), remedy=_AGAIN)
    return Split(rows, starts, fields if fields.exists() else None)


def _integers(path: Path, mode: Literal["r"] | None = None) -> np.ndarray:
    """The one-dimensional integer array in a file, memory-mapped if ``mode`` is given."""
    require_file(path, error=DataError, remedy=_AGAIN)
    try:
        numbers = np.load(path, mmap_mode=mode)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(f"damaged data set: {short_message(error)}.", where=str(path), remedy=_AGAIN) from None
    if not isinstance(numbers, np.ndarray) or numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError("damaged data set: not a list of whole numbers.", where=str(path), remedy=_AGAIN)
    return numbers


def load_splits(folder: Path) -> tuple[Split, Split, Tokenizer]:
    """The training split, the validation split, and their vocabulary.

    Raises:
        DataError: as ``load_split``.
    """
    require_split(folder, "train")
    vocabulary = load_vocabulary(folder)
    return load_split(folder, "train", vocabulary), load_split(folder, "valid", vocabulary), vocabulary


def load_vocabulary(folder: Path) -> Tokenizer:
    """The tokeniser that a prepared data set was made with."""
    return load_tokenizer(folder)


@dataclass(frozen=True)
class BatchPlan:
    """How rows are grouped into batches.

    Args:
        positions: positions per batch, rows x width.
        length: the maximum width.
        bucket: widths are multiples of this; rows of similar length share a batch, so there is little padding.
        full_share: share of rows that get the maximum width, so that PAD after END is learned.
        seed: seed of the shuffle; the plan of an epoch depends on the seed and the epoch only.
    """

    positions: int
    length: int
    bucket: int = 8
    full_share: float = 0.2
    seed: int = 0

    def epoch(self, lengths: np.ndarray, epoch: int) -> list[tuple[np.ndarray, int]]:
        """``(rows, width)`` of every batch of one epoch, shuffled."""
        rng = np.random.default_rng((self.seed, epoch))
        widths = np.minimum(-(-lengths // self.bucket) * self.bucket, self.length)
        widths[rng.random(len(lengths)) < self.full_share] = self.length
        batches: list[tuple[np.ndarray, int]] = []
        for size in np.unique(widths):
            rows = rng.permutation(np.flatnonzero(widths == size))
            count = max(1, self.positions // int(size))
            batches += [(rows[start : start + count], int(size)) for start in range(0, len(rows), count)]
        return [batches[index] for index in rng.permutation(len(batches))]


def padded_batch(split: Split, rows: np.ndarray, width: int, pad_id: int) -> np.ndarray:
    """The rows as one ``[rows, width]`` int64 array, cut or padded to the width."""
    starts, ends = split.offsets[rows], split.offsets[np.asarray(rows) + 1]
    indices = starts[:, None] + np.arange(width)
    in_row = indices < ends[:, None]
    batch = np.full(indices.shape, pad_id, np.int64)
    batch[in_row] = split.ids[indices[in_row]]
    return batch


def batch_stream(
    split: Split, plan: BatchPlan, *, skip: int = 0, rank: int = 0, world: int = 1
) -> Iterator[tuple[np.ndarray, int]]:
    """Endless batches as ``(row numbers, width)``, epoch after epoch, starting after ``skip`` batches.

    With several processes, each takes every ``world``-th batch of the same plan.

    Raises:
        DataError: there are no rows, or one is longer than the plan's maximum width.
    """
    if not len(split):
        raise DataError("the data set has no rows.")
    longest = int(split.lengths.max())
    if longest > plan.length:
        raise DataError(
            f"the data set has rows of {longest} positions, the model holds {plan.length}.",
            remedy=f"Prepare the data with --length {plan.length}, or give the model a greater length.",
        )
    epoch = 0
    while True:
        batches = plan.epoch(split.lengths, epoch)
        batches = batches[: max(world, len(batches) // world * world)]
        own_batches = [batches[index % len(batches)] for index in range(rank, len(batches), world)]
        yield from own_batches[skip:]
        skip = max(0, skip - len(own_batches))
        epoch += 1
