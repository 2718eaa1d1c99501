"""What is about words needs a model whose entries are words, not pieces of them."""

from __future__ import annotations

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import HuggingFaceTokenizer

_OF_WORDS = "Take a model with a vocabulary of words (`dlmctl data prepare` without --tokenizer)."


def needs_words(model: Pretrained, what: str, remedy: str = _OF_WORDS) -> None:
    """Check that a model's vocabulary is one of whole words.

    What each word was seen as, or whether it may stand, says nothing of the pieces of a Hugging Face tokenizer.

    Args:
        what: needs them, such as ``what the control 'pos' counts``.

    Raises:
        ModelError: it is not.
    """
    if isinstance(model.tokenizer, HuggingFaceTokenizer):
        raise ModelError(
            f"{what} is of words, and this model writes pieces of words.", where=str(model.folder), remedy=remedy
        )
