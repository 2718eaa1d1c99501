"""Look up the words of a control in the model's vocabulary."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dlmctl.errors import UnknownWordError, first_few
from dlmctl.text.tokenizer import Tokenizer

# The most unknown words that a message names, and the most suggestions for each.
MAX_NAMED, MAX_SUGGESTIONS = 3, 3
# The least similarity of the nearest suggestion, and of the others.
NEAREST, OTHERS = 0.6, 0.75
# Marks of word processors, and what most texts to learn from have in their place.
_TYPED = str.maketrans({"\u2014": "--", "\u2013": "-", "\u2019": "'"})


def known_ids(words: Sequence[str], tokenizer: Tokenizer, control: str) -> list[int]:
    """The id of each word.

    Raises:
        Unknown: a word is outside the vocabulary; the message names the nearest ones that are in it.
    """
    ids = tokenizer.encode(words)[1:-1]
    unknown = [word for word, index in zip(words, ids, strict=True) if index == tokenizer.unk_id]
    if unknown:
        distinct = list(dict.fromkeys(unknown))
        listed = first_few(list(map(repr, distinct)), MAX_NAMED)
        what = f"the word {listed} is not" if len(distinct) == 1 else f"the words {listed} are not"
        raise UnknownWordError(
            f"{what} among the {len(tokenizer)} that the model knows.",
            where=control,
            remedy=_suggestions(distinct[:MAX_NAMED], tokenizer),
        )
    return ids


def _suggestions(words: Sequence[str], tokenizer: Tokenizer) -> str:
    """Known words that may have been meant by each word."""
    known = _known_words(tokenizer)
    near = {word: [known.by_fold[fold] for fold in known.nearest(_fold(word))] for word in words}
    suggestions = {word: " or ".join(map(repr, others)) for word, others in near.items() if others}
    if not suggestions:
        return "Every word must be in its vocabulary."
    if len(words) == 1:
        return f"Did you mean {suggestions[words[0]]}?"
    return f"Did you mean {'; '.join(f'{others} for {word!r}' for word, others in suggestions.items())}?"


@lru_cache(maxsize=2)
def _known_words(tokenizer: Tokenizer) -> KnownWords:
    special = {tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id}
    return KnownWords(tokenizer.words(index for index in range(len(tokenizer)) if index not in special))


class KnownWords:
    """The words of a vocabulary, to find those like another; a table of targets may have thousands of unknown words.

    Attributes:
        by_fold: each word by its ``_fold``, the first of several.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.by_fold = {_fold(word): word for word in reversed(words)}
        self.folds = np.array(list(self.by_fold), dtype=object)
        self.sizes = np.array([len(fold) for fold in self.folds])
        # How often each word has a character.
        self.counts: dict[str, np.ndarray] = {}

    def nearest(self, fold: str) -> list[str]:
        """The folds most like ``fold``, or itself alone."""
        if fold in self.by_fold:
            return [fold]
        # The similarity is at most the share of characters in common, counted without regard to their order; few words
        # come near enough for a comparison in full.
        common = sum(np.minimum(self._counts(char), count) for char, count in Counter(fold).items())
        candidates = self.folds[2 * common >= NEAREST * (self.sizes + len(fold))].tolist()
        close = difflib.get_close_matches(fold, candidates, n=MAX_SUGGESTIONS, cutoff=NEAREST)
        ratios = {other: difflib.SequenceMatcher(None, other, fold).ratio() for other in close[1:]}
        return close[:1] + [other for other, ratio in ratios.items() if ratio >= OTHERS]

    def _counts(self, char: str) -> np.ndarray:
        if char not in self.counts:
            self.counts[char] = np.array([fold.count(char) for fold in self.folds])
        return self.counts[char]


def _fold(word: str) -> str:
    """A word in lower case without its accents, and marks as they are typed: three full stops for an ellipsis."""
    decomposed = unicodedata.normalize("NFKD", word.lower().translate(_TYPED))
    return "".join(char for char in decomposed if not unicodedata.combining(char))
