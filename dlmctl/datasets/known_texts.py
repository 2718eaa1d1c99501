"""The texts that a model was trained on, as numbers beside its weights, so that a text can be told from a new one.

``training_texts.npy`` holds four bytes of each text's BLAKE2 digest, sorted: of a million texts 4 MB, from which no
text can be read back. A new text is taken for an old one once in four thousand times then, and is only drawn again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dlmctl.datasets.dataset import Split
from dlmctl.errors import ModelError, brief
from dlmctl.text.files import require_file
from dlmctl.text.tokenizer import Tokenizer

FILE = "training_texts.npy"
# Of the file: of a quarter of a billion texts.
MOST_BYTES = 2**30


class KnownTexts:
    """A set of texts: ``text in known``."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def __contains__(self, text: object) -> bool:
        number = _number(str(text))
        at = int(np.searchsorted(self.numbers, number))
        return at < len(self.numbers) and bool(self.numbers[at] == number)

    def __len__(self) -> int:
        return len(self.numbers)


def texts_in(split: Split, tokenizer: Tokenizer) -> Iterator[str]:
    """The texts of a split as a model would write them; of rows packed in blocks, what lies between two ends."""
    for at in range(len(split)):
        ids = split.row(at)
        for part in np.split(ids, np.flatnonzero(ids == tokenizer.end_id) + 1):
            if len(part):
                yield tokenizer.text(tokenizer.words(part.tolist()))


def write_known_texts(folder: Path, texts: Iterable[str]) -> None:
    """Keep the texts of a model's training data beside it."""
    numbers = np.unique(np.fromiter(map(_number, texts), np.uint32))
    with (folder / FILE).open("wb") as file:
        np.save(file, numbers, allow_pickle=False)


@lru_cache(maxsize=4)
def known_texts(folder: Path) -> KnownTexts | None:
    """The training texts of the model in ``folder``, None where they are not kept.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    require_file(path, MOST_BYTES)
    try:
        numbers = np.load(path, allow_pickle=False)
        if numbers.dtype != np.uint32 or numbers.ndim != 1:
            raise ValueError(f"an array of {numbers.dtype}")
    except (OSError, ValueError, EOFError) as error:
        # numpy advises to read what it does not know in a way that would run code.
        said = brief(error) if isinstance(error, OSError) else "it is damaged, or holds something else"
        remedy = "Delete it; texts are then not compared with the training text."
        raise ModelError(f"cannot be read: {said}.", where=str(path), remedy=remedy) from None
    return KnownTexts(numbers)


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")
