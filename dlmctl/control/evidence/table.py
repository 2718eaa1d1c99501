"""A sparse table of how often each word was seen in each class, in memory and on disk.

A class is a combination of values on a few axes, such as (left tag, tag, right tag). Only combinations that occur are
stored, so that a table over a hundred thousand possible classes stays below a megabyte.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dlmctl.errors import ModelError, short_message
from dlmctl.text.files import require_file

FORMAT = 1
# On disk, counts of at least this are stored in a separate list, the others in one byte.
LARGE = 255
# Far above any real table; it limits what a damaged file can allocate.
MAX_CELLS = 50_000_000
# The length of a fingerprint.
DIGITS = 16
RECOUNT_REMEDY = "Count it again, or install dlmctl again."

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CountTable:
    """Counts of words in classes; the cells are sorted by word, then by class.

    Args:
        axes: the names of the values on each axis.
        combinations: the classes ``[K, len(axes)]``, each as the indices of its values.
        starts: where the cells of each word begin ``[V + 1]``.
        classes: the class of each cell ``[N]``.
        counts: how often the cell's word was seen in its class ``[N]``.
        vocabulary: fingerprint of the words that the ids belong to, see ``fingerprint``.
    """

    axes: tuple[tuple[str, ...], ...]
    combinations: Ints
    starts: Ints
    classes: Ints
    counts: Ints
    vocabulary: str = ""

    @property
    def words(self) -> int:
        """The size V of the vocabulary."""
        return len(self.starts) - 1

    @cached_property
    def word_ids(self) -> Ints:
        """The word of each cell ``[N]``."""
        return np.repeat(np.arange(self.words), np.diff(self.starts))

    @cached_property
    def by_class(self) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """The cells sorted by class: where those of each class begin ``[K + 1]``, their words and counts ``[N]``."""
        order = np.argsort(self.classes, kind="stable")
        sizes = np.bincount(self.classes, minlength=len(self.combinations))
        return np.concatenate([[0], np.cumsum(sizes)]), self.word_ids[order], self.counts[order].astype(np.float64)

    @cached_property
    def word_totals(self) -> Ints:
        """How often each word was seen ``[V]``."""
        return _sums(self.word_ids, self.counts, self.words)

    @cached_property
    def class_totals(self) -> Ints:
        """How often each class was seen ``[K]``."""
        return _sums(self.classes, self.counts, len(self.combinations))

    def marginal(self, axis: int) -> Ints:
        """How often each word was seen with each value on an axis ``[V, values]``."""
        size = len(self.axes[axis])
        cells = self.word_ids * size + self.combinations[self.classes, axis]
        return _sums(cells, self.counts, self.words * size).reshape(self.words, size)

    def allowed(self, axis: int, choices: Collection[str] | None) -> NDArray[np.bool_]:
        """Which classes ``[K]`` have one of these values on an axis; None allows all.

        Values that are not on the axis match no class.
        """
        if choices is None:
            return np.ones(len(self.combinations), bool)
        known = np.array([name in choices for name in self.axes[axis]], bool)
        return known[self.combinations[:, axis]]

    def for_words(self, origins: Ints, vocabulary: str) -> CountTable:
        """The same counts for another vocabulary.

        Args:
            origins: the id here of each word of the other vocabulary ``[V']``, -1 for a word that was not counted.
            vocabulary: its fingerprint.
        """
        is_known = origins >= 0
        sizes = np.where(is_known, np.diff(self.starts)[origins], 0)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        # Where the cells of each word were, for each of them.
        moved = np.repeat(self.starts[:-1][origins] - starts[:-1], sizes)
        cells = np.arange(len(moved)) + moved
        return replace(
            self, starts=starts, classes=self.classes[cells], counts=self.counts[cells], vocabulary=vocabulary
        )

    def plus(self, other: CountTable) -> CountTable:
        """The counts of two texts together, over the same axes and vocabulary."""
        axes = [list(dict.fromkeys(names)) for names in map(operator.add, self.axes, other.axes)]
        tables = (self, other)
        values = np.concatenate([table.combinations_over(axes)[table.classes] for table in tables])
        word_ids = np.concatenate([table.word_ids for table in tables])
        counts = np.concatenate([table.counts for table in tables])
        return count_table(axes, word_ids, values, self.words, self.vocabulary, times=counts)

    def combinations_over(self, axes: Sequence[Sequence[str]]) -> Ints:
        """The classes ``[K, len(axes)]`` as indices into longer axes."""
        columns = [
            np.array([longer.index(name) for name in names], np.int64)[self.combinations[:, axis]]
            for axis, (names, longer) in enumerate(zip(self.axes, axes, strict=True))
        ]
        return np.stack(columns, -1)

    def sums(self, wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Counts ``[U, V]`` of each word, summed over the sets of classes ``wanted [U, K]``."""
        starts, words, counts = self.by_class
        rows, classes = np.nonzero(wanted)
        sizes = starts[classes + 1] - starts[classes]
        # The cells of all wanted classes, concatenated.
        offsets = np.cumsum(sizes) - sizes
        cells = np.arange(int(sizes.sum())) + np.repeat(starts[classes] - offsets, sizes)
        flat_index = np.repeat(rows, sizes) * self.words + words[cells]
        sums = np.bincount(flat_index, counts[cells], len(wanted) * self.words)
        return sums.reshape(len(wanted), self.words).astype(np.float32)


def count_table(
    axes: Sequence[Sequence[str]],
    word_ids: Ints,
    values: Ints,
    size: int,
    vocabulary: str = "",
    *,
    times: Ints | None = None,
) -> CountTable:
    """Count observations.

    Args:
        axes: the names of the values on each axis.
        word_ids: the word of each observation ``[M]``.
        values: its values on the axes ``[M, len(axes)]``.
        size: number of words V.
        times: how often each observation was made ``[M]``; once if not given.
    """
    shape = tuple(len(names) for names in axes)
    combined = np.ravel_multi_index(tuple(values.T), shape)
    seen, classes = np.unique(combined, return_inverse=True)
    cells, at = np.unique(word_ids.astype(np.int64) * max(1, len(seen)) + classes, return_inverse=True)
    counts = np.bincount(at, times, len(cells)).astype(np.int64)
    words, classes = np.divmod(cells, max(1, len(seen)))
    return CountTable(
        axes=tuple(tuple(names) for names in axes),
        combinations=np.stack(np.unravel_index(seen, shape), -1).astype(np.int64),
        starts=np.concatenate([[0], np.cumsum(np.bincount(words, minlength=size))]),
        classes=classes,
        counts=counts,
        vocabulary=vocabulary,
    )


def class_shares(table: CountTable, axis: int, totals: Ints) -> NDArray[np.float32]:
    """p(class | its value on one axis), in the column of that value, else 0: ``[K, values]``.

    Args:
        totals: how often each value was seen ``[values]``.
    """
    shares = np.zeros((len(table.combinations), len(totals)), np.float32)
    values = table.combinations[:, axis]
    shares[np.arange(len(values)), values] = table.class_totals / np.maximum(1, totals)[values]
    return shares


def product(left: NDArray[Any], *others: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Multiply matrices from left to right, in the dtype of the second; the first may be boolean.

    It uses torch: the threads of numpy's library keep spinning for some 25 ms after each product, and the sampling loop
    would wait at each of its calls for a busy core.
    """
    result = torch.from_numpy(left.astype(others[0].dtype, copy=False))
    for other in others:
        result = result @ torch.from_numpy(other)
    return result.numpy()


def pruned(table: CountTable, least: int) -> CountTable:
    """The table without cells with counts below ``least`` and without empty classes: smaller, slightly less precise."""
    keep = table.counts >= least
    used, classes = np.unique(table.classes[keep], return_inverse=True)
    sizes = np.bincount(table.word_ids[keep], minlength=table.words)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return CountTable(
        table.axes, table.combinations[used], starts, classes, table.counts[keep], vocabulary=table.vocabulary
    )


def fingerprint(words: Sequence[str]) -> str:
    """``DIGITS`` hexadecimal digits that identify a vocabulary, given its words in the order of their ids."""
    return hashlib.sha256(json.dumps(list(words), ensure_ascii=False).encode()).hexdigest()[:DIGITS]


def save_table(table: CountTable, path: Path) -> None:
    """Write a table as safetensors: three bytes per cell if there are fewer than 65,536 classes."""
    large = table.counts >= LARGE
    arrays = {
        "combinations": table.combinations.astype(np.uint16),
        "sizes": _smallest(np.diff(table.starts)),
        "classes": _smallest(table.classes),
        "counts": np.where(large, LARGE, table.counts).astype(np.uint8),
        "large": table.counts[large].astype(np.uint32),
    }
    metadata = {"format": FORMAT, "axes": table.axes, "vocabulary": table.vocabulary, "words": table.words}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(arrays, {"evidence": json.dumps(metadata, ensure_ascii=False)}))


def load_table(path: Path, vocabulary: str | None = None) -> CountTable:
    """Load a table written by ``save_table``.

    Args:
        vocabulary: the fingerprint that its words must have; any if not given.

    Raises:
        ModelError: it is missing, damaged, or for another vocabulary.
    """
    if path.exists():
        require_file(path)
    try:
        metadata, arrays = read_arrays(path)
        table = _restored(metadata, arrays)
    except FileNotFoundError:
        raise ModelError("the evidence table is missing.", where=str(path), remedy=RECOUNT_REMEDY) from None
    except (
        *(OSError, SafetensorError, ValueError, KeyError),
        *(TypeError, AttributeError, IndexError, RecursionError),
    ) as error:
        raise ModelError(
            f"the evidence table is damaged: {short_message(error)!r}.", where=str(path), remedy=RECOUNT_REMEDY
        ) from None
    require_vocabulary(table.vocabulary, vocabulary, path)
    return table


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The metadata and the arrays of an evidence file; raises the errors of the file system and of safetensors."""
    with safe_open(path, framework="np") as file:
        metadata = json.loads((file.metadata() or {})["evidence"])
        if not isinstance(metadata, dict) or metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']} is not the known {FORMAT}")
        return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def require_vocabulary(fingerprint: str, wanted: str | None, path: Path) -> None:
    """Check that evidence belongs to the wanted vocabulary, if there is one.

    Raises:
        ModelError: the two fingerprints differ.
    """
    if wanted is not None and fingerprint != wanted:
        raise ModelError(
            "this evidence belongs to another vocabulary than the model's.",
            where=str(path),
            remedy="Count it again for this model.",
        )


def _restored(metadata: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> CountTable:
    int64 = {name: array.astype(np.int64) for name, array in arrays.items()}
    axes = tuple(tuple(str(name) for name in names) for names in metadata["axes"])
    combinations, sizes, classes, counts = (int64[name] for name in ("combinations", "sizes", "classes", "counts"))
    large = counts == LARGE
    if any((array < 0).any() for array in int64.values()):
        raise ValueError("a number is negative")
    if combinations.shape != (len(combinations), len(axes)) or sizes.shape != (metadata["words"],):
        raise ValueError("the arrays do not fit the axes")
    if len(classes) > MAX_CELLS or not sizes.sum() == len(classes) == len(counts) or large.sum() != len(int64["large"]):
        raise ValueError("the numbers of cells differ")
    if len(classes) and classes.max() >= len(combinations):
        raise ValueError("a cell has a class that does not exist")
    if (combinations >= np.array([len(names) for names in axes])).any():
        raise ValueError("a class has a value that does not exist")
    counts[large] = int64["large"]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return CountTable(axes, combinations, starts, classes, counts, str(metadata["vocabulary"]))


def _sums(indices: Ints, counts: Ints, size: int) -> Ints:
    # Floating-point sums of integers are exact up to 2^53.
    return np.bincount(indices, counts, size).astype(np.int64)


def _smallest(values: Ints) -> NDArray[Any]:
    return values.astype(np.uint16 if not len(values) or values.max() < 1 << 16 else np.uint32)
