"""The requirement that a model's vocabulary consists of whole words."""

from __future__ import annotations

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import HuggingFaceTokenizer

_OF_WORDS = "Take a model with a vocabulary of words (`dlmctl data prepare` without --tokenizer)."


def needs_words(model: Pretrained, what: str, remedy: str = _OF_WORDS) -> None:
    """Check that a model's vocabulary consists of whole words.

    Counts and restrictions of words do not apply to the pieces of a Hugging Face tokenizer.

    Args:
        what: what needs whole words, such as ``what the control 'pos' counts``.

    Raises:
        ModelError: the vocabulary consists of pieces of words.
    """
    if isinstance(model.tokenizer, HuggingFaceTokenizer):
        raise ModelError(
            f"{what} is of words, and this model writes pieces of words.", where=str(model.folder), remedy=remedy
        )
