"""Hashes of a model's training texts, stored with its weights, to tell whether a generated text is new.

``training_texts.npy`` holds four bytes of each text's BLAKE2 digest, sorted: 4 MB for a million texts, from which no
text can be recovered. A new text is then mistaken for a known one once in four thousand times, and is merely redrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dlmctl.datasets.dataset import Split
from dlmctl.errors import ModelError, short_message
from dlmctl.text.files import require_file
from dlmctl.text.tokenizer import Tokenizer

FILE = "training_texts.npy"
# Maximum size of the file, for a quarter of a billion texts.
MAX_BYTES = 2**30


class KnownTexts:
    """A set of texts: ``text in known``."""

    def __init__(self, hashes: np.ndarray) -> None:
        self.hashes = hashes

    def __contains__(self, text: object) -> bool:
        text_hash = _text_hash(str(text))
        index = int(np.searchsorted(self.hashes, text_hash))
        return index < len(self.hashes) and bool(self.hashes[index] == text_hash)

    def __len__(self) -> int:
        return len(self.hashes)


def texts_in(split: Split, tokenizer: Tokenizer) -> Iterator[str]:
    """The texts of a split as a model would write them; rows packed in blocks are split after each END."""
    for index in range(len(split)):
        ids = split.row(index)
        for part in np.split(ids, np.flatnonzero(ids == tokenizer.end_id) + 1):
            if len(part):
                yield tokenizer.text(tokenizer.words(part.tolist()))


def write_known_texts(folder: Path, texts: Iterable[str], earlier: KnownTexts | None = None) -> None:
    """Store the hashes of a model's training texts in its folder.

    Args:
        earlier: those of the model that it was trained on from.
    """
    hashes = np.unique(np.fromiter(map(_text_hash, texts), np.uint32))
    if earlier is not None:
        hashes = np.union1d(hashes, earlier.hashes)
    with (folder / FILE).open("wb") as file:
        np.save(file, hashes, allow_pickle=False)


@lru_cache(maxsize=4)
def known_texts(folder: Path) -> KnownTexts | None:
    """The training texts of the model in ``folder``, None if they are not stored.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    require_file(path, MAX_BYTES)
    try:
        hashes = np.load(path, allow_pickle=False)
        if hashes.dtype != np.uint32 or hashes.ndim != 1:
            raise ValueError(f"an array of {hashes.dtype}")
    except (OSError, ValueError, EOFError) as error:
        # For unknown files, numpy's own message recommends an option that would run code.
        reason = short_message(error) if isinstance(error, OSError) else "it is damaged, or holds something else"
        remedy = "Delete it; texts are then not compared with the training text."
        raise ModelError(f"cannot be read: {reason}.", where=str(path), remedy=remedy) from None
    return KnownTexts(hashes)


def _text_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")
