"""Tokenisers as saved beside a model or a data set."""

from __future__ import annotations

from pathlib import Path

from dlmctl.text.checkpoint_tokenizer import ROLES_FILE, CheckpointTokenizer
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer, WordTokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokeniser saved in ``folder``: a Hugging Face one if it has a ``tokenizer`` folder, else words.

    Raises:
        ModelError: a file is missing or damaged.
    """
    if not (folder / "tokenizer").is_dir():
        return WordTokenizer.load(folder)
    if (folder / "tokenizer" / ROLES_FILE).is_file():
        return CheckpointTokenizer.load(folder)
    return HuggingFaceTokenizer(str(folder / "tokenizer"))
