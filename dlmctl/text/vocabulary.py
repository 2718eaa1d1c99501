"""Words that a control names, as ids of the model's vocabulary."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from dlmctl.errors import RecipeError
from dlmctl.text.tokenizer import Tokenizer


def known_ids(words: Sequence[str], tokenizer: Tokenizer, control: str) -> list[int]:
    """The id of each word.

    Raises:
        RecipeError: a word is outside the vocabulary; the message names the nearest one that is in it.
    """
    ids = tokenizer.encode(words)[1:-1]
    for word, index in zip(words, ids, strict=True):
        if index == tokenizer.unk_id:
            raise RecipeError(
                f"the word {word!r} is not among the {len(tokenizer)} that the model knows.",
                where=control,
                remedy=_nearest_word(word, tokenizer),
            )
    return ids


def _nearest_word(word: str, tokenizer: Tokenizer) -> str | None:
    structure = {tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id}
    known = tokenizer.words(index for index in range(len(tokenizer)) if index not in structure)
    by_lower_case = {other.lower(): other for other in reversed(known)}
    close = difflib.get_close_matches(word.lower(), list(by_lower_case), n=1, cutoff=0.6)
    return f"Did you mean {by_lower_case[close[0]]!r}?" if close else "Every word must be in its vocabulary."
