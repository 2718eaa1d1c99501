"""Shapes of sentences: constituency trees without words and tags, for the lengths of texts with given spans.

A few spans do not determine the number of words of a text. A constituent that should end at some word is closed there
by what follows it: in most texts that have it, by the end of the sentence. So lengths are drawn with the frequencies of
the training texts that have the spans.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from dlmctl.annotators.trees import JOIN, ROOTS, Span, Tree
from dlmctl.checkpoint.control_weights import check_control_files
from dlmctl.control.evidence.table import FORMAT, RECOUNT_REMEDY, Ints, read_arrays
from dlmctl.errors import ModelError, short_message
from dlmctl.text.files import require_file

# How many of the most frequent shapes are kept; the symbols of a closing bracket, of a word, and of the first phrase;
# and the most bytes that a file may unpack to.
MAX_SHAPES, CLOSE, WORD, FIRST_PHRASE, MAX_BYTES = 20_000, 0, 1, 2, 1 << 26


@dataclass(frozen=True, eq=False)
class Shapes:
    """Trees as a sequence of symbols: ``WORD``, an opening phrase, and ``CLOSE``.

    Args:
        phrases: names of the symbols from ``FIRST_PHRASE`` on.
        symbols: the symbols of all trees ``[N]``.
        counts: how often each tree was seen ``[trees]``.
    """

    phrases: tuple[str, ...]
    symbols: NDArray[np.uint8]
    counts: Ints

    @cached_property
    def depth(self) -> Ints:
        """The number of open phrases after each symbol ``[N]``."""
        opened = (self.symbols >= FIRST_PHRASE).astype(np.int64)
        return np.cumsum(opened - (self.symbols == CLOSE))

    @cached_property
    def starts(self) -> Ints:
        """The start of each tree, and the end of the last ``[trees + 1]``."""
        return np.concatenate([[0], np.flatnonzero(self.depth == 0) + 1])

    @cached_property
    def lengths(self) -> Ints:
        """The number of words of each tree ``[trees]``."""
        words = np.concatenate([[0], np.cumsum(self.symbols == WORD)])
        return np.diff(words[self.starts])

    @cached_property
    def constituents(self) -> Ints:
        """Tree, first word, last word and phrase of every constituent ``[M, 4]``, outer ones before inner ones."""
        is_close = self.symbols == CLOSE
        brackets = np.flatnonzero(self.symbols != WORD)
        # At each depth brackets open and close alternately.
        pairs = brackets[np.argsort((self.depth + is_close)[brackets], kind="stable")].reshape(-1, 2)
        pairs = pairs[np.argsort(pairs[:, 0])]
        tree = np.searchsorted(self.starts, pairs[:, 0], side="right") - 1
        words_before = np.concatenate([[0], np.cumsum(self.symbols == WORD)])
        start, stop = (words_before[pairs[:, end]] - words_before[self.starts[tree]] for end in (0, 1))
        return np.stack([tree, start, stop - 1, self.symbols[pairs[:, 0]].astype(np.int64) - FIRST_PHRASE], -1)

    def with_spans(self, spans: Sequence[Span]) -> Ints:
        """The trees that have all these spans."""
        trees, constituents = np.arange(len(self.counts)), self.constituents
        for start, end, label in spans:
            matching = constituents[(constituents[:, 1] == start) & (constituents[:, 2] == end)]
            chains = groupby(zip(matching[:, 0].tolist(), matching[:, 3].tolist(), strict=True), key=itemgetter(0))
            having = [tree for tree, chain in chains if JOIN.join(self.phrases[phrase] for _, phrase in chain) == label]
            trees = np.intersect1d(trees, np.array(having, np.int64))
        return trees

    def lengths_with_spans(self, spans: Sequence[Span], most: int) -> tuple[float, ...]:
        """How often trees of 0 to ``most`` words with all these spans were seen."""
        trees = self.with_spans(spans)
        return tuple(np.bincount(self.lengths[trees], self.counts[trees], most + 1)[: most + 1].tolist())

    def save(self, path: Path) -> None:
        """Write the shapes as safetensors, compressed by LZMA."""
        arrays = {"symbols": _packed(self.symbols), "counts": _packed(self.counts.astype("<u4"))}
        about = {"format": FORMAT, "phrases": self.phrases}
        path.write_bytes(save(arrays, {"evidence": json.dumps(about, ensure_ascii=False)}))


def _packed(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(lzma.compress(array.tobytes(), preset=6 | lzma.PRESET_EXTREME), np.uint8)


def _unpacked(packed: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    unpacker = lzma.LZMADecompressor(memlimit=MAX_BYTES)
    return np.frombuffer(unpacker.decompress(packed.tobytes(), MAX_BYTES), kind)


def shapes_of(trees: Iterable[Tree]) -> Shapes:
    """The most frequent shapes of these trees, sorted so that similar ones are adjacent and compress well."""
    counted = Counter(tuple(_symbols(tree)) for tree in trees)
    # A single word is not a shape, nor are several phrases at the root.
    kept = [(shape, count) for shape, count in counted.most_common() if shape[:1] not in ((), (WORD,))][:MAX_SHAPES]
    phrases = sorted({symbol for shape, _ in kept for symbol in shape if isinstance(symbol, str)})
    ids = {name: at for at, name in enumerate(phrases[: 256 - FIRST_PHRASE], start=FIRST_PHRASE)}
    kept = [(shape, count) for shape, count in kept if all(isinstance(item, int) or item in ids for item in shape)]
    rows = sorted(([item if isinstance(item, int) else ids[item] for item in shape], count) for shape, count in kept)
    symbols = np.array([symbol for shape, _ in rows for symbol in shape], np.uint8)
    return Shapes(tuple(ids), symbols, np.array([count for _, count in rows], np.int64))


def _symbols(tree: Tree) -> Iterator[int | str]:
    if tree.label in ROOTS and tree.children:
        if len(tree.children) == 1:
            yield from _symbols(tree.children[0])
    elif not tree.children:
        yield WORD
    else:
        yield tree.label
        for child in tree.children:
            yield from _symbols(child)
        yield CLOSE


def load_shapes(path: Path | None) -> Shapes | None:
    """The shapes in a file, read once; None if there is no file.

    Raises:
        ModelError: the file is damaged.
    """
    return None if path is None else _shapes(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _shapes(path: Path, _written: int) -> Shapes:
    check_control_files(path.parent)
    require_file(path, remedy=RECOUNT_REMEDY)
    try:
        return _restored(*read_arrays(path))
    except (
        OSError,
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        lzma.LZMAError,
    ) as error:
        raise ModelError(
            f"the shapes are damaged: {short_message(error)!r}.", where=str(path), remedy=RECOUNT_REMEDY
        ) from None


def _restored(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Shapes:
    phrases = tuple(str(name) for name in about["phrases"])
    symbols = _unpacked(arrays["symbols"], "|u1")
    shapes = Shapes(phrases, symbols, _unpacked(arrays["counts"], "<u4").astype(np.int64))
    if len(symbols) and (shapes.depth.min() < 0 or shapes.depth[-1] or symbols.max() >= FIRST_PHRASE + len(phrases)):
        raise ValueError("the brackets do not match")
    if len(shapes.lengths) != len(shapes.counts) or not shapes.lengths.all():
        raise ValueError("the counts do not fit the trees")
    return shapes
