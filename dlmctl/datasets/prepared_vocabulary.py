"""The vocabulary of a data set in preparation: an existing one, an existing one with further words, or a new one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dlmctl.errors import DataError, UserError, did_you_mean
from dlmctl.text.tokenizer import SPECIALS, SPLITS, Tokenizer, WordTokenizer

ADD_WORDS, MIN_COUNT = "--add-words", "--min-count"
# The minimum count of the words of a new vocabulary, as in Diffusion-LM.
DEFAULT_MIN_COUNT = 11


def vocabulary_of(
    sentences: Iterable[Sequence[str]], existing: Tokenizer | None, least: int | None, splitting: str, where: Path
) -> Tokenizer:
    """The vocabulary for training sentences.

    Args:
        existing: None for a new one.
        least: the minimum count of the words of a new vocabulary, or of those that are added to the existing one; None
            to add none.
        where: the source of the sentences, for messages.

    Raises:
        DataError: no word occurs that often.
    """
    if existing is not None:
        if least is None:
            return existing
        assert isinstance(existing, WordTokenizer)
        return existing.extended(sentences, least)
    assert least is not None
    tokenizer = WordTokenizer.from_corpus(sentences, least, splitting)
    if len(tokenizer) == len(SPECIALS):
        remedy = f"Choose a smaller {MIN_COUNT}."
        raise DataError(f"no word occurs {least} times.", where=str(where), remedy=remedy)
    return tokenizer


def minimum_count(existing: Tokenizer | None, min_count: int | None, add_words: int | None) -> int | None:
    """The minimum count of the words of a new vocabulary, or of those that are added to an existing one; None to add
    none.

    Args:
        min_count, add_words: as requested, None if they were not.

    Raises:
        UserError: a count is below 1, is given for a vocabulary whose words it cannot choose, or there is no vocabulary
            of whole words to add to.
    """
    if existing is None and add_words is None:
        least = DEFAULT_MIN_COUNT if min_count is None else min_count
        if least < 1:
            raise UserError(f"the minimum count is {least}.", where=MIN_COUNT, remedy="It must be 1 or more.")
        return least
    _require_extensible(existing, add_words)
    if min_count is not None:
        what = "is for a new vocabulary, and an existing one was given."
        remedy = f"Leave it out, or add words of the texts with {ADD_WORDS}."
        raise UserError(what, where=MIN_COUNT, remedy="Leave it out." if add_words is not None else remedy)
    return add_words


def _require_extensible(existing: Tokenizer | None, add_words: int | None) -> None:
    if add_words is None:
        return
    if not isinstance(existing, WordTokenizer):
        what = "there is no vocabulary of whole words to add to."
        raise UserError(what, where=ADD_WORDS, remedy="Name one with --vocabulary.")
    if add_words < 1:
        raise UserError(f"the minimum count is {add_words}.", where=ADD_WORDS, remedy="It must be 1 or more.")


def splitting_for(existing: Tokenizer | None, requested: str | None) -> str:
    """The requested splitting of texts, or that of the vocabulary, which must agree.

    Raises:
        UserError: they do not, or there is no such splitting.
    """
    own = existing.splitting if isinstance(existing, WordTokenizer) else None
    if requested is not None and own is not None and requested != own:
        what = f"the words of the vocabulary are split as {own!r}, not {requested!r}."
        raise UserError(what, where="--splitting", remedy="Leave it out.")
    if requested is not None and requested not in SPLITS:
        what = f"there is no splitting {requested!r}."
        raise UserError(what, where="--splitting", remedy=did_you_mean(requested, list(SPLITS)))
    return requested or own or "e2e"


def with_fewer_unknown(existing: Tokenizer | None, least: int | None) -> str:
    """How to prepare the same texts with fewer unknown words. Arguments as for ``vocabulary_of``."""
    tokenizer = "split words into pieces with a Hugging Face tokenizer (--tokenizer NAME)"
    if least is not None:
        option = MIN_COUNT if existing is None else ADD_WORDS
        return f"keep rarer words ({option} below {least}), or {tokenizer}" if least > 1 else tokenizer
    if isinstance(existing, WordTokenizer):
        return f"add words of the texts to the vocabulary ({ADD_WORDS} 3), or {tokenizer}"
    return "use a vocabulary made for such texts, or a Hugging Face tokenizer (--tokenizer NAME)"
