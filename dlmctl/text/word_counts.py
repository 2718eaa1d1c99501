"""Word counts of a model's training text: ``frequencies.json`` in the model's folder.

The file holds a count for each entry of ``vocab.json`` in the same folder, in the order of their ids. Format 1 repeated
the words.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlmctl.errors import ModelError
from dlmctl.text.files import read_object
from dlmctl.text.tokenizer import SPECIALS, WordTokenizer

FILE = "frequencies.json"
FORMAT, FORMAT_WITH_WORDS = 2, 1
AGAIN = "Count the training text again, or leave the file out."
MILLION, BILLION = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class WordCounts:
    """Counts of words as written.

    Args:
        tokens: the number of words in the text, including unknown ones and punctuation marks.
        counts: how often each word occurs.
    """

    tokens: int
    counts: Mapping[str, int]

    @cached_property
    def _by_fold(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for word, count in self.counts.items():
            counts[word.casefold()] += count
        return counts

    def plus(self, other: WordCounts) -> WordCounts:
        """The counts of two texts together."""
        return WordCounts(self.tokens + other.tokens, Counter(self.counts) + Counter(other.counts))

    def per_million(self, word: str) -> float:
        """The frequency of a word per million words, regardless of case."""
        return self._by_fold[word.casefold()] * MILLION / max(1, self.tokens)

    def zipf(self, word: str) -> float:
        """The frequency of a word on the Zipf scale (van Heuven et al. 2014): the decimal logarithm of its frequency
        per billion words, with every word counted once more, so that words without a count have a value."""
        return math.log10((self._by_fold[word.casefold()] + 1) * BILLION / (self.tokens + len(self._by_fold)))


def count_words(ids: NDArray[np.integer[Any]], vocabulary: WordTokenizer) -> WordCounts:
    """The counts of a text of word ids; unknown words count only towards ``tokens``."""
    by_id = np.bincount(ids, minlength=len(vocabulary)).tolist()
    special_ids = (vocabulary.start_id, vocabulary.end_id, vocabulary.pad_id)
    counts = {word: by_id[index] for word, index in vocabulary.vocabulary.items() if word not in SPECIALS}
    tokens = sum(by_id) - sum(by_id[index] for index in special_ids)
    return WordCounts(tokens, {word: count for word, count in counts.items() if count})


def save_counts(counts: WordCounts, vocabulary: WordTokenizer, folder: Path) -> None:
    """Write ``frequencies.json`` into the folder with the ``vocab.json`` of ``vocabulary``."""
    in_order = [counts.counts.get(word, 0) for word in _words_by_id(vocabulary.vocabulary)]
    value = {"format": FORMAT, "tokens": counts.tokens, "counts": in_order}
    (folder / FILE).write_text(json.dumps(value, separators=(",", ":")) + "\n", "utf-8")


def load_counts(folder: Path) -> WordCounts | None:
    """The counts in a model's folder; None if there are none.

    Raises:
        ModelError: the file is damaged, or too new.
    """
    path = folder / FILE
    if not path.exists():
        return None
    value = read_object(path, remedy=AGAIN)
    if value.get("format") not in (FORMAT_WITH_WORDS, FORMAT):
        raise ModelError(f"format {value.get('format')!r} is not the known {FORMAT}.", where=str(path), remedy=AGAIN)
    tokens, counts = value.get("tokens"), value.get("counts")
    if value["format"] == FORMAT:
        words = _words_by_id(read_object(folder / "vocab.json"))
        if not isinstance(counts, list) or len(counts) != len(words):
            what = f"is damaged: it must have {len(words)} counts, one for each word."
            raise ModelError(what, where=str(path), remedy=AGAIN)
        counts = dict(zip(words, counts, strict=True))
    if not (_is_count(tokens) and isinstance(counts, dict) and all(map(_is_count, counts.values()))):
        raise ModelError("is damaged: counts are whole numbers from 0.", where=str(path), remedy=AGAIN)
    return WordCounts(value["tokens"], {word: count for word, count in counts.items() if count})


def _words_by_id(vocabulary: Mapping[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
