"""Words that a control names, as ids of the model's vocabulary."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

from dlmctl.errors import Unknown
from dlmctl.text.tokenizer import Tokenizer

# Unknown words that a message names, and near ones of each; those behind the nearest must be nearer than it need be.
NAMED, NEAR = 3, 3
NEAREST, NEXT = 0.6, 0.75


def known_ids(words: Sequence[str], tokenizer: Tokenizer, control: str) -> list[int]:
    """The id of each word.

    Raises:
        Unknown: a word is outside the vocabulary; the message names the nearest ones that are in it.
    """
    ids = tokenizer.encode(words)[1:-1]
    unknown = [word for word, index in zip(words, ids, strict=True) if index == tokenizer.unk_id]
    if unknown:
        named = list(dict.fromkeys(unknown))
        listed = ", ".join(map(repr, named[:NAMED])) + (f" and {len(named) - NAMED} more" * (len(named) > NAMED))
        what = f"the word {listed} is not" if len(named) == 1 else f"the words {listed} are not"
        raise Unknown(
            f"{what} among the {len(tokenizer)} that the model knows.",
            where=control,
            remedy=_near_words(named[:NAMED], tokenizer),
        )
    return ids


def _near_words(words: Sequence[str], tokenizer: Tokenizer) -> str:
    """What may have been meant by each word, as far as there is something near."""
    structure = {tokenizer.start_id, tokenizer.end_id, tokenizer.unk_id, tokenizer.pad_id}
    known = tokenizer.words(index for index in range(len(tokenizer)) if index not in structure)
    by_letters = {_letters(other): other for other in reversed(known)}
    near = {word: [by_letters[one] for one in _nearest(_letters(word), list(by_letters))] for word in words}
    found = {word: " or ".join(map(repr, others)) for word, others in near.items() if others}
    if not found:
        return "Every word must be in its vocabulary."
    if len(words) == 1:
        return f"Did you mean {found[words[0]]}?"
    return f"Did you mean {'; '.join(f'{others} for {word!r}' for word, others in found.items())}?"


def _nearest(letters: str, known: Sequence[str]) -> list[str]:
    close = difflib.get_close_matches(letters, known, n=NEAR, cutoff=NEAREST)
    if letters in close:
        return [letters]
    return close[:1] + [one for one in close[1:] if difflib.SequenceMatcher(None, one, letters).ratio() >= NEXT]


def _letters(word: str) -> str:
    """A word in lower case without its accents."""
    return "".join(char for char in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(char))
