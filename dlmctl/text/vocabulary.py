"""Look up the words of a control in the model's vocabulary."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

from dlmctl.errors import UnknownWordError
from dlmctl.text.tokenizer import Tokenizer

# The most unknown words that a message names, and the most suggestions for each.
MAX_NAMED, MAX_SUGGESTIONS = 3, 3
# The least similarity of the nearest suggestion, and of the others.
NEAREST, OTHERS = 0.6, 0.75


def known_ids(words: Sequence[str], tokenizer: Tokenizer, control: str) -> list[int]:
    """The id of each word.

    Raises:
        Unknown: a word is outside the vocabulary; the message names the nearest ones that are in it.
    """
    ids = tokenizer.encode(words)[1:-1]
    unknown = [word for word, index in zip(words, ids, strict=True) if index == tokenizer.unk_id]
    if unknown:
        distinct = list(dict.fromkeys(unknown))
        listed = ", ".join(map(repr, distinct[:MAX_NAMED]))
        listed += f" and {len(distinct) - MAX_NAMED} more" * (len(distinct) > MAX_NAMED)
        what = f"the word {listed} is not" if len(distinct) == 1 else f"the words {listed} are not"
        raise UnknownWordError(
            f"{what} among the {len(tokenizer)} that the model knows.",
            where=control,
            remedy=_suggestions(distinct[:MAX_NAMED], tokenizer),
        )
    return ids


def _suggestions(words: Sequence[str], tokenizer: Tokenizer) -> str:
    """Known words that may have been meant by each word."""
    special = {tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id}
    known = tokenizer.words(index for index in range(len(tokenizer)) if index not in special)
    by_fold = {_fold(word): word for word in reversed(known)}
    near = {word: [by_fold[fold] for fold in _nearest(_fold(word), list(by_fold))] for word in words}
    suggestions = {word: " or ".join(map(repr, others)) for word, others in near.items() if others}
    if not suggestions:
        return "Every word must be in its vocabulary."
    if len(words) == 1:
        return f"Did you mean {suggestions[words[0]]}?"
    return f"Did you mean {'; '.join(f'{others} for {word!r}' for word, others in suggestions.items())}?"


def _nearest(fold: str, known: Sequence[str]) -> list[str]:
    close = difflib.get_close_matches(fold, known, n=MAX_SUGGESTIONS, cutoff=NEAREST)
    if fold in close:
        return [fold]
    return close[:1] + [other for other in close[1:] if difflib.SequenceMatcher(None, other, fold).ratio() >= OTHERS]


def _fold(word: str) -> str:
    """A word in lower case without its accents."""
    return "".join(char for char in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(char))
