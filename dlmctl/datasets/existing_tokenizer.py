"""The tokeniser that exists already and that a data set is to be prepared with."""

from __future__ import annotations

from pathlib import Path

from dlmctl.checkpoint.resolve import family_of, resolve
from dlmctl.errors import UserError
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer, load_tokenizer


def find_tokenizer(vocabulary: str | None, huggingface: str | None) -> Tokenizer | None:
    """The tokeniser that the user names, if any.

    Args:
        vocabulary: a model (folder, bundled or hub name) or a prepared data set whose vocabulary to use.
        huggingface: a folder or hub name of a Hugging Face tokenizer.

    Raises:
        UserError: both are given, or what is named cannot be loaded.
    """
    if vocabulary and huggingface:
        raise UserError("--vocabulary and --tokenizer exclude each other.", remedy="Give one of them.")
    if huggingface:
        return HuggingFaceTokenizer(huggingface)
    if not vocabulary:
        return None
    folder = Path(vocabulary)
    if not ((folder / "vocab.json").is_file() or (folder / "tokenizer").is_dir()):
        folder = resolve(vocabulary)
    if family_of(folder) in ("tokens", "canvas"):
        remedy = "Copy its tokenizer.json into a folder of its own and give that as --tokenizer."
        raise UserError("is a checkpoint of others over tokens, and has no words.", where=vocabulary, remedy=remedy)
    return load_tokenizer(folder)
