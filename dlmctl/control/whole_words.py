"""Controls that speak of words need a model whose entries are words, not pieces of them."""

from __future__ import annotations

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import ModelError
from dlmctl.text.tokenizer import HuggingFaceTokenizer


def needs_words(model: Pretrained, control: str) -> None:
    """Check that a model's vocabulary is one of whole words.

    Over the pieces of a Hugging Face tokenizer a word to avoid would pass in two pieces, and a length would count
    pieces.

    Raises:
        ModelError: it is not.
    """
    if isinstance(model.tokenizer, HuggingFaceTokenizer):
        raise ModelError(
            f"the control {control!r} speaks of words, and this model writes pieces of words.",
            where=str(model.folder),
            remedy="Take a model with a vocabulary of words (`dlmctl data prepare` without --tokenizer).",
        )
