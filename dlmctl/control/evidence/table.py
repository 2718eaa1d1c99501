"""A sparse table of how often each word was seen in each class, in memory and on disk.

A class is a combination of values on a few named axes, such as (left tag, tag, right tag). Only the combinations
that occur are kept, so that a table over a hundred thousand possible classes stays below a megabyte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dlmctl.errors import ModelError, brief
from dlmctl.text.files import require_file

FORMAT = 1
# On disk a count of this or more stands in a list of its own, and the others take one byte.
LARGE = 255
# Far above any real table; a damaged file may ask for no more.
MAX_CELLS = 50_000_000
AGAIN = "Count it again, or install dlmctl again."

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CountTable:
    """Counts of words in classes, sorted by word, then by class.

    Args:
        axes: the names of the values on each axis of a class.
        combinations: the classes ``[K, len(axes)]``, each the numbers of its values.
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
        """The same cells sorted by class: where those of each class begin ``[K + 1]``, words and counts ``[N]``."""
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
        """How often each word was seen with each value of one axis ``[V, values]``."""
        size = len(self.axes[axis])
        cells = self.word_ids * size + self.combinations[self.classes, axis]
        return _sums(cells, self.counts, self.words * size).reshape(self.words, size)

    def allowed(self, axis: int, choices: Collection[str] | None) -> NDArray[np.bool_]:
        """Which classes ``[K]`` have one of these values on an axis; None allows all.

        Values that the axis does not know match no class.
        """
        if choices is None:
            return np.ones(len(self.combinations), bool)
        known = np.array([name in choices for name in self.axes[axis]], bool)
        return known[self.combinations[:, axis]]

    def sums(self, wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Counts of each word summed over sets of classes: ``wanted [U, K]`` to ``[U, V]``."""
        starts, words, counts = self.by_class
        rows, classes = np.nonzero(wanted)
        sizes = starts[classes + 1] - starts[classes]
        # The cells of all chosen classes one after the other: each class's run, from its own start.
        before = np.cumsum(sizes) - sizes
        cells = np.arange(int(sizes.sum())) + np.repeat(starts[classes] - before, sizes)
        places = np.repeat(rows, sizes) * self.words + words[cells]
        found = np.bincount(places, counts[cells], len(wanted) * self.words)
        return found.reshape(len(wanted), self.words).astype(np.float32)


def count_table(
    axes: Sequence[Sequence[str]], word_ids: Ints, values: Ints, size: int, vocabulary: str = ""
) -> CountTable:
    """Counts from observations.

    Args:
        axes: the names of the values on each axis.
        word_ids: the word of each observation ``[M]``.
        values: its values on the axes ``[M, len(axes)]``.
        size: how many words there are.
    """
    shape = tuple(len(names) for names in axes)
    combined = np.ravel_multi_index(tuple(values.T), shape)
    seen, classes = np.unique(combined, return_inverse=True)
    cells, counts = np.unique(word_ids.astype(np.int64) * max(1, len(seen)) + classes, return_counts=True)
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
    """The share of each class among all those with its value on one axis, in the value's column ``[K, values]``.

    Args:
        totals: how often each value was seen ``[values]``.
    """
    found = np.zeros((len(table.combinations), len(totals)), np.float32)
    values = table.combinations[:, axis]
    found[np.arange(len(values)), values] = table.class_totals / np.maximum(1, totals)[values]
    return found


def product(left: NDArray[Any], *others: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Matrices multiplied from left to right, in the type of the second; the first may be of truth values.

    By torch. The threads of numpy's own library stay awake for some 25 ms after each product, and a walk whose threads
    find a core busy waits at each of its calls.
    """
    found = torch.from_numpy(left.astype(others[0].dtype, copy=False))
    for other in others:
        found = found @ torch.from_numpy(other)
    return found.numpy()


def pruned(table: CountTable, least: int) -> CountTable:
    """The table without cells of fewer than ``least`` counts and the classes left empty: smaller, and a bit blunter."""
    keep = table.counts >= least
    used, classes = np.unique(table.classes[keep], return_inverse=True)
    sizes = np.bincount(table.word_ids[keep], minlength=table.words)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return CountTable(
        table.axes, table.combinations[used], starts, classes, table.counts[keep], vocabulary=table.vocabulary
    )


def fingerprint(words: Sequence[str]) -> str:
    """Sixteen hexadecimal digits that tell one vocabulary from another; words in the order of their ids."""
    return hashlib.sha256(json.dumps(list(words), ensure_ascii=False).encode()).hexdigest()[:16]


def save_table(table: CountTable, path: Path) -> None:
    """Write a table as safetensors: three bytes a cell where there are fewer than 65,536 classes."""
    large = table.counts >= LARGE
    arrays = {
        "combinations": table.combinations.astype(np.uint16),
        "sizes": _smallest(np.diff(table.starts)),
        "classes": _smallest(table.classes),
        "counts": np.where(large, LARGE, table.counts).astype(np.uint8),
        "large": table.counts[large].astype(np.uint32),
    }
    about = {"format": FORMAT, "axes": table.axes, "vocabulary": table.vocabulary, "words": table.words}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(arrays, {"evidence": json.dumps(about, ensure_ascii=False)}))


def load_table(path: Path, vocabulary: str | None = None) -> CountTable:
    """A table that ``save_table`` wrote.

    Args:
        vocabulary: the fingerprint that its words must have.

    Raises:
        ModelError: it is missing, damaged, or counts the words of another vocabulary.
    """
    if path.exists():
        require_file(path)
    try:
        about, arrays = read_arrays(path)
        table = _restored(about, arrays)
    except FileNotFoundError:
        raise ModelError("the evidence table is missing.", where=str(path), remedy=AGAIN) from None
    except (
        *(OSError, SafetensorError, ValueError, KeyError),
        *(TypeError, AttributeError, IndexError, RecursionError),
    ) as error:
        raise ModelError(f"the evidence table is damaged: {brief(error)!r}.", where=str(path), remedy=AGAIN) from None
    same_vocabulary(table.vocabulary, vocabulary, path)
    return table


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What a file of evidence says of itself, and its arrays; errors as the file systems' and safetensors' own."""
    with safe_open(path, framework="np") as file:
        about = json.loads((file.metadata() or {})["evidence"])
        if not isinstance(about, dict) or about["format"] != FORMAT:
            raise ValueError(f"format {about['format']} is not the known {FORMAT}")
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def same_vocabulary(found: str, wanted: str | None, path: Path) -> None:
    """Refuse evidence about other words.

    Raises:
        ModelError: the two fingerprints differ.
    """
    if wanted is not None and found != wanted:
        raise ModelError(
            "this evidence belongs to another vocabulary than the model's.",
            where=str(path),
            remedy="Count it again for this model.",
        )


def _restored(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> CountTable:
    wide = {name: array.astype(np.int64) for name, array in arrays.items()}
    axes = tuple(tuple(str(name) for name in names) for names in about["axes"])
    combinations, sizes, classes, counts = (wide[name] for name in ("combinations", "sizes", "classes", "counts"))
    large = counts == LARGE
    if combinations.shape != (len(combinations), len(axes)) or sizes.shape != (about["words"],):
        raise ValueError("the arrays do not fit the axes")
    if len(classes) > MAX_CELLS or not sizes.sum() == len(classes) == len(counts) or large.sum() != len(wide["large"]):
        raise ValueError("the numbers of cells differ")
    if len(classes) and classes.max() >= len(combinations):
        raise ValueError("a cell has a class that does not exist")
    if (combinations >= np.array([len(names) for names in axes])).any():
        raise ValueError("a class has a value that does not exist")
    counts[large] = wide["large"]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return CountTable(axes, combinations, starts, classes, counts, str(about["vocabulary"]))


def _sums(places: Ints, counts: Ints, size: int) -> Ints:
    # Floating point sums of whole numbers are exact up to 2^53.
    return np.bincount(places, counts, size).astype(np.int64)


def _smallest(values: Ints) -> NDArray[Any]:
    return values.astype(np.uint16 if not len(values) or values.max() < 1 << 16 else np.uint32)
