"""What counts words needs a model whose entries are words, not pieces of them."""

from __future__ import annotations

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import HuggingFaceTokenizer


def needs_words(model: Pretrained, control: str) -> None:
    """Check that a model's vocabulary is one of whole words.

    A table of what each word was seen as says nothing of the pieces of a Hugging Face tokenizer.

    Raises:
        ModelError: it is not.
    """
    if isinstance(model.tokenizer, HuggingFaceTokenizer):
        raise ModelError(
            f"what the control {control!r} counts is of words, and this model writes pieces of words.",
            where=str(model.folder),
            remedy="Take a model with a vocabulary of words (`dlmctl data prepare` without --tokenizer).",
        )
