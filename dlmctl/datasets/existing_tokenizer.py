"""Loading an existing tokeniser with which to prepare a data set."""

from __future__ import annotations

from pathlib import Path

from dlmctl.checkpoint.resolve import family_of, resolve
from dlmctl.checkpoint.vendors.load import checkpoint_tokenizer
from dlmctl.errors import UserError
from dlmctl.text.saved_tokenizer import load_tokenizer
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer


def find_tokenizer(vocabulary: str | None, huggingface: str | None) -> Tokenizer | None:
    """The tokeniser that the user names, if any.

    Args:
        vocabulary: a model (folder, bundled or hub name) or a prepared data set whose vocabulary to use.
        huggingface: a folder or hub name of a Hugging Face tokenizer.

    Raises:
        UserError: both are given, or the tokeniser cannot be loaded.
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
    if (tokenizer := checkpoint_tokenizer(folder)) is not None:
        return tokenizer
    if family_of(folder) == "canvas":
        remedy = "Copy its tokenizer.json into a separate folder and give that as --tokenizer."
        raise UserError("is a DiffusionGemma, which nothing is trained for.", where=vocabulary, remedy=remedy)
    return load_tokenizer(folder)
