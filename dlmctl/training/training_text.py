"""What a model's folder says of its training text: hashes of the texts, and counts of the words."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

from dlmctl.datasets.dataset import Split
from dlmctl.datasets.known_texts import KnownTexts, known_texts, texts_in, write_known_texts
from dlmctl.text.tokenizer import Tokenizer, WordTokenizer
from dlmctl.text.word_counts import WordCounts, count_words, load_counts, save_counts


class EarlierText(NamedTuple):
    """The same of a model that is trained on, as far as its folder says it."""

    known: KnownTexts | None = None
    counts: WordCounts | None = None

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read the folder of a model.

        Raises:
            ModelError: a file is damaged.
        """
        return cls(known_texts(folder), load_counts(folder))


def save_training_text(split: Split, tokenizer: Tokenizer, folder: Path, earlier: EarlierText | None = None) -> None:
    """Write the hashes of the texts of a split, and the counts of their words if there are words, into a model's
    folder, together with those of the model that was trained on."""
    known, counts = EarlierText() if earlier is None else earlier
    write_known_texts(folder, texts_in(split, tokenizer), known)
    if isinstance(tokenizer, WordTokenizer):
        own = count_words(split.ids, tokenizer)
        save_counts(own if counts is None else own.plus(counts), tokenizer, folder)
