"""How often words occur in a model's training text: ``frequencies.json`` in the model's folder.

It holds a number for each entry of ``vocab.json`` beside it, in their order. Format 1 had the words again.
"""

from __future__ import annotations

import json
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
FORMAT, NAMED = 2, 1
AGAIN = "Count the training text again, or leave the file out."
MILLION = 1_000_000


@dataclass(frozen=True)
class WordCounts:
    """Counts of words as written.

    Args:
        tokens: words of the text in all, unknown ones and punctuation marks among them.
        counts: how often each word stands there.
    """

    tokens: int
    counts: Mapping[str, int]

    @cached_property
    def _by_fold(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for word, count in self.counts.items():
            found[word.casefold()] += count
        return found

    def per_million(self, word: str) -> float:
        """How often a word occurs in a million, its spellings in upper and lower case taken together."""
        return self._by_fold[word.casefold()] * MILLION / max(1, self.tokens)


def count_words(ids: NDArray[np.integer[Any]], vocabulary: WordTokenizer) -> WordCounts:
    """The counts of a text, given as word ids; unknown words count as tokens only."""
    found = np.bincount(ids, minlength=len(vocabulary)).tolist()
    frame = (vocabulary.start_id, vocabulary.end_id, vocabulary.pad_id)
    counts = {word: found[index] for word, index in vocabulary.vocabulary.items() if word not in SPECIALS}
    return WordCounts(sum(found) - sum(found[index] for index in frame), {word: n for word, n in counts.items() if n})


def save_counts(counts: WordCounts, vocabulary: WordTokenizer, folder: Path) -> None:
    """Write ``frequencies.json`` beside the ``vocab.json`` of ``vocabulary``."""
    found = [counts.counts.get(word, 0) for word in _in_order(vocabulary.vocabulary)]
    value = {"format": FORMAT, "tokens": counts.tokens, "counts": found}
    (folder / FILE).write_text(json.dumps(value, separators=(",", ":")) + "\n", "utf-8")


def load_counts(folder: Path) -> WordCounts | None:
    """The counts beside a model, None where it has none.

    Raises:
        ModelError: the file is damaged, or too new.
    """
    path = folder / FILE
    if not path.exists():
        return None
    value = read_object(path, remedy=AGAIN)
    if value.get("format") not in (NAMED, FORMAT):
        raise ModelError(f"format {value.get('format')!r} is not the known {FORMAT}.", where=str(path), remedy=AGAIN)
    tokens, counts = value.get("tokens"), value.get("counts")
    if value["format"] == FORMAT:
        words = _in_order(read_object(folder / "vocab.json"))
        if not isinstance(counts, list) or len(counts) != len(words):
            what = f"is damaged: it must have {len(words)} counts, one for each word."
            raise ModelError(what, where=str(path), remedy=AGAIN)
        counts = dict(zip(words, counts, strict=True))
    if not (_is_count(tokens) and isinstance(counts, dict) and all(map(_is_count, counts.values()))):
        raise ModelError("is damaged: counts are whole numbers from 0.", where=str(path), remedy=AGAIN)
    return WordCounts(value["tokens"], {word: count for word, count in counts.items() if count})


def _in_order(vocabulary: Mapping[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
