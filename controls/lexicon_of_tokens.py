"""What ``lexicon`` lets pass on models whose tokens are parts of words: the words of its list or table, or those of one
token that fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial

from dlmctl import RecipeError
from dlmctl.control.automata import Automaton, Requirement
from dlmctl.control.automata.listed_words import (
    MARKS,
    Entry,
    listed_words,
    one_token_words,
    roles,
    writable,
)
from dlmctl.control.warn_once import warn_once
from dlmctl.text.spelling import with_plain_marks
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
        RecipeError: no word is left, or none that counts.
    """
    known, tokens = frozenset[str](), frozenset[int]()
    if words.listed is None and words.table is None:
        tokens = _fitting_tokens(words, passes, tokenizer)
        if not tokens:
            raise words.no_word_left(list(one_token_words(tokenizer).values()))
    else:
        known = _known(words, tokenizer)
        if least and passes and all(map(_is_exempt, known)):
            what = "`min_words` counts no function words and marks, and there are no other words that fit."
            remedy = "Widen the bounds or the list, or set `function_words: false`."
            raise RecipeError(what, where="lexicon", remedy=remedy)
    entries = _entries(words, known, passes)
    language = partial(listed_words, entries=entries, least=least, tokens=tokens)

    def of_one_token(tokenizer: HuggingFaceTokenizer) -> Automaton:
        one_token = set(one_token_words(tokenizer).values())
        several = sorted(word for word in known - one_token if "word" in roles(word))
        if several:
            warn_once(
                f"lexicon: {len(several):,} of {len(known):,} words are several tokens, such as {several[0]!r}, and "
                "are left out: the automaton of all words, with the other controls, would be too large."
            )
        return language(tokenizer, most_tokens=1)

    return Requirement(
        "lexicon",
        (entries, tokens, least),
        over_tokens=language,
        fewer_over_tokens=of_one_token,
        weighs_lengths=False,
        has_complement=False,
    )


def _fitting_tokens(words: WordFilter, passes: bool, tokenizer: HuggingFaceTokenizer) -> frozenset[int]:
    """The words of one token that fit, if there is neither a list nor a table; without function words if they pass."""
    is_other = {token: word for token, word in one_token_words(tokenizer).items() if not (passes and _is_exempt(word))}
    return frozenset(token for token, word in is_other.items() if words.fault(word) is None)


def _known(words: WordFilter, tokenizer: HuggingFaceTokenizer) -> frozenset[str]:
    """The words of a list or table that fit and that the tokenizer can write; those of the list that it cannot write
    are named in a warning.

    Raises:
        RecipeError: no word is left.
    """
    candidates: Iterable[str] = words.table.rows.keys() if words.table is not None else ()
    if words.listed is not None:
        candidates = {*words.listed.values(), *map(with_plain_marks, words.listed.values())}
    possible = writable(tokenizer, candidates)
    unmet = words.missing_words(possible, tokenizer.split)
    if unmet is not None and not possible:
        raise RecipeError(unmet, where="lexicon", remedy="List words that this model's tokens can write.")
    if unmet is not None:
        warn_once(f"lexicon: {unmet}")
    known = frozenset(word for word in possible if words.fault(word) is None)
    if not known:
        raise words.no_word_left(list(possible))
    return known


def _is_exempt(word: str) -> bool:
    """Whether a word does not count; "Will" and "Us" are function words at the beginning of a sentence only."""
    return is_function_word(word, "")


def _entries(words: WordFilter, known: frozenset[str], passes: bool) -> tuple[Entry, ...]:
    """The words, also with a capital, and what else may occur."""
    entries = list[Entry]()
    forms = {form for form in _with_capitals(known) if words.fault(form) is None}
    if passes:
        entries += [Entry(word, "attached") for word in sorted(FUNCTION_WORDS.intersection(CLITICS))]
        forms |= {form for form in _with_capitals(FUNCTION_WORDS.difference(CLITICS, "'")) if is_function_word(form)}
        entries += MARKS
    for word in sorted(forms):
        entries += [Entry(word, role, counts=not (passes and _is_exempt(word))) for role in roles(word)]
    return tuple(entries)


def _with_capitals(words: Iterable[str]) -> Iterator[str]:
    """The words, each as it is and with a capital."""
    for word in words:
        yield from (word, word[:1].title() + word[1:])
