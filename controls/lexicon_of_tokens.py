"""What ``lexicon`` lets pass on models whose tokens are parts of words: the words of its list or table, or those of one
token that fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from functools import lru_cache, partial

from dlmctl import RecipeError
from dlmctl.control.automata import Automaton, Requirement
from dlmctl.control.automata.listed_words import MARKS, Entry, listed_words, one_token_words, writable
from dlmctl.control.warn_once import warn_once
from dlmctl.text.syllables import CLITICS
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .function_words import FUNCTION_WORDS, is_function_word
from .word_bounds import WordFilter


# Asked for at every preparation of every text.
@lru_cache(maxsize=64)
def lexicon_of_tokens(words: WordFilter, passes: bool, least: int, tokenizer: HuggingFaceTokenizer) -> Requirement:
    """The requirement that a text consists of the words that fit.

    Args:
        passes: whether function words and punctuation marks may occur, too.
        least: how many other words a text has at least.

    Raises:
        RecipeError: no word is left.
    """
    known: Set[str] = frozenset()
    tokens: Set[int] = frozenset()
    if words.listed is None and words.table is None:
        tokens = _fitting_tokens(words, passes, tokenizer)
    else:
        known = _known(words, tokenizer)
    if not known and not tokens:
        what = "this model's tokens write no word that fits."
        raise RecipeError(what, where="lexicon", remedy="Widen the bounds or the list.")
    unmet = words.missing_words(known, tokenizer.split)
    if unmet is not None:
        warn_once(f"lexicon: {unmet}")
    language = partial(listed_words, entries=tuple(_entries(known, passes)), least=least, tokens=tokens)

    def of_one_token(tokenizer: HuggingFaceTokenizer) -> Automaton:
        several = sorted(known - set(one_token_words(tokenizer).values()))
        if several:
            warn_once(
                f"lexicon: {len(several):,} of {len(known):,} words are several tokens, such as {several[0]!r}, and "
                "are left out: with them and the other controls the automaton would be too large."
            )
        return language(tokenizer, most_tokens=1)

    return Requirement(
        "lexicon",
        (tuple(sorted(known)), tokens, passes, least),
        over_tokens=language,
        fewer_over_tokens=of_one_token,
        weighs_lengths=False,
        has_complement=False,
    )


@lru_cache(maxsize=64)
def _fitting_tokens(words: WordFilter, passes: bool, tokenizer: HuggingFaceTokenizer) -> frozenset[int]:
    """The words of one token that fit, if there is neither a list nor a table; without function words if they pass."""
    is_other = {token: word for token, word in one_token_words(tokenizer).items() if not (passes and _is_exempt(word))}
    return frozenset(token for token, word in is_other.items() if words.fault(word) is None)


@lru_cache(maxsize=64)
def _known(words: WordFilter, tokenizer: HuggingFaceTokenizer) -> frozenset[str]:
    """The words of a list or table that fit and that the tokenizer can write."""
    listed = words.listed or {}
    candidates = listed or (words.table.rows if words.table is not None else ())
    return frozenset(writable(tokenizer, (listed.get(word, word) for word in candidates if words.fault(word) is None)))


def _is_exempt(word: str) -> bool:
    """Whether a word does not count; "Will" and "Us" are function words at the beginning of a sentence only."""
    return word.casefold() in FUNCTION_WORDS


def _entries(known: Set[str], passes: bool) -> Iterator[Entry]:
    """The words, also with a capital, and what else may occur."""
    words = set(_with_capitals(known))
    if passes:
        yield from (Entry(word, "clitic") for word in sorted(FUNCTION_WORDS.intersection(CLITICS)))
        words |= {form for form in _with_capitals(FUNCTION_WORDS.difference(CLITICS, "'")) if is_function_word(form)}
        yield from MARKS
    for word in sorted(words):
        yield Entry(word, "word", counts=not (passes and _is_exempt(word)))


def _with_capitals(words: Iterable[str]) -> Iterator[str]:
    """The words, each as it is and with a capital."""
    for word in words:
        yield from (word, word[:1].upper() + word[1:])
