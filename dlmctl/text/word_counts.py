"""How often words occur in a model's training text, and with which tags: ``frequencies.json`` in the model's folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dlmctl.errors import ModelError
from dlmctl.text.files import read_object

FILE = "frequencies.json"
FORMAT = 1
AGAIN = "Count the training text again, or leave the file out."
MILLION = 1_000_000
# A word seen with a tag less often than this is taken for a slip of the tagger.
LEAST_SHARE = 0.02


@dataclass(frozen=True)
class WordCounts:
    """Counts of words as written.

    Args:
        tokens: words of the text in all, unknown ones and punctuation marks among them.
        counts: how often each word stands there.
        tags: of each word the tags that it has there more than by a slip; empty where the text was not tagged.
    """

    tokens: int
    counts: Mapping[str, int]
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def _by_fold(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for word, count in self.counts.items():
            found[word.casefold()] += count
        return found

    def per_million(self, word: str) -> float:
        """How often a word occurs in a million, its spellings in upper and lower case taken together."""
        return self._by_fold[word.casefold()] * MILLION / max(1, self.tokens)

    def may_be(self, word: str, tags: Collection[str]) -> bool:
        """Whether a word has one of these tags now and then; of a word without counts nothing is ruled out."""
        seen = self.tags.get(word, ())
        return not seen or any(tag in tags for tag in seen)


def count_words(
    sentences: Iterable[Sequence[str]],
    tags: Iterable[Sequence[str]] | None = None,
    *,
    known: Collection[str] | None = None,
) -> WordCounts:
    """The counts of a text.

    Args:
        tags: the tag of each word of each sentence.
        known: words to keep, such as a vocabulary; the others count as tokens only.
    """
    tokens = 0
    counts: Counter[str] = Counter()
    tagged: dict[str, Counter[str]] = {}
    named = ((words, ()) for words in sentences) if tags is None else zip(sentences, tags, strict=True)
    for words, found in named:
        tokens += len(words)
        counts.update(word for word in words if known is None or word in known)
        for word, tag in zip(words, found, strict=False):
            if known is None or word in known:
                tagged.setdefault(word, Counter())[tag] += 1
    return WordCounts(tokens, counts, {word: _usual(found, counts[word]) for word, found in tagged.items()})


def _usual(tags: Counter[str], count: int) -> list[str]:
    return [tag for tag, number in tags.most_common() if number >= LEAST_SHARE * count]


def save_counts(counts: WordCounts, folder: Path) -> None:
    """Write ``frequencies.json``, words by falling count."""
    order = sorted(counts.counts, key=lambda word: (-counts.counts[word], word))
    value = {
        "format": FORMAT,
        "tokens": counts.tokens,
        "counts": {word: counts.counts[word] for word in order},
        "tags": {word: list(counts.tags[word]) for word in order if word in counts.tags},
    }
    (folder / FILE).write_text(json.dumps(value, ensure_ascii=False) + "\n", "utf-8")


def load_counts(folder: Path) -> WordCounts | None:
    """The counts beside a model, None where it has none.

    Raises:
        ModelError: the file is damaged, or too new.
    """
    path = folder / FILE
    if not path.exists():
        return None
    value = read_object(path, remedy=AGAIN)
    if value.get("format") != FORMAT:
        raise ModelError(f"format {value.get('format')!r} is not the known {FORMAT}.", where=str(path), remedy=AGAIN)
    tokens, counts, tags = value.get("tokens"), value.get("counts"), value.get("tags", {})
    if not (_is_count(tokens) and isinstance(counts, dict) and all(map(_is_count, counts.values()))):
        raise ModelError("is damaged: counts are whole numbers from 0.", where=str(path), remedy=AGAIN)
    if not (isinstance(tags, dict) and all(map(_are_names, tags.values()))):
        raise ModelError("is damaged: the tags of a word are a list of names.", where=str(path), remedy=AGAIN)
    return WordCounts(value["tokens"], value["counts"], tags)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
