"""What ``lexicon`` lets pass on models whose tokens are parts of words: the words of its list or table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache, partial

from dlmctl import RecipeError
from dlmctl.control.automata import Automaton, Requirement
from dlmctl.control.automata.listed_words import Entry, Role, listed_words, writable
from dlmctl.control.warn_once import warn_once
from dlmctl.text.spelling import split_words
from dlmctl.text.syllables import CLITICS
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .function_words import FUNCTION_WORDS, is_function_word
from .word_bounds import WordFilter

# Marks that may stand between words, also several together that tokenizers write as one token.
_MARKS: dict[Role, tuple[str, ...]] = {
    "closing": (*".,!?;:)", "...", '"', '."', ',"', '?"', '!"', ").", "),"),
    "opening": ("(", '"'),
    "hyphen": ("-",),
    "dash": ("\u2013", "\u2014"),
    "break": ("\n", "\n\n"),
}


def lexicon_of_tokens(words: WordFilter, passes: bool, least: int, tokenizer: HuggingFaceTokenizer) -> Requirement:
    """The requirement that a text consists of the words that fit.

    Args:
        passes: whether function words and punctuation marks may occur, too.
        least: how many other words a text has at least.

    Raises:
        RecipeError: there is neither a list nor a table, or the tokenizer can write none of its words.
    """
    fitting = _fitting(words)
    known = _known(words, tokenizer)
    if not known:
        what = f"this model's tokens write none of the {len(fitting):,} words that fit."
        raise RecipeError(what, where="lexicon", remedy="Widen the bounds or the list.")
    unmet = words.missing_words(known, tokenizer.split)
    if unmet is not None:
        warn_once(f"lexicon: {unmet}")
    language = partial(_language, entries=tuple(_entries(known, passes)), least=least)
    key = (tuple(sorted(known)), passes, least)
    return Requirement("lexicon", key, over_tokens=language, weighs_lengths=False, has_complement=False)


@lru_cache(maxsize=64)
def _fitting(words: WordFilter) -> frozenset[str]:
    """The words of a list or table that fit.

    Raises:
        RecipeError: there is neither, so that the words are without number.
    """
    if words.listed is None and words.table is None:
        what = "a model whose tokens are parts of words writes words without number, and bounds alone list none."
        raise RecipeError(what, where="lexicon", remedy="Give `words`, a `file` or a `table` as well.")
    candidates = words.listed.values() if words.listed is not None else words.table.rows if words.table else ()
    return frozenset(word for word in candidates if words.fault(word) is None)


@lru_cache(maxsize=64)
def _known(words: WordFilter, tokenizer: HuggingFaceTokenizer) -> frozenset[str]:
    """Those of the words that the tokenizer can write."""
    return frozenset(writable(tokenizer, _fitting(words)))


def _entries(known: frozenset[str], passes: bool) -> Iterator[Entry]:
    """The words, also with a capital, and what else may occur."""
    words = set(_with_capitals(known))
    if passes:
        own_words = {word for word in FUNCTION_WORDS if split_words(word) == [word]}
        yield from (Entry(word, "clitic") for word in sorted(own_words.intersection(CLITICS)))
        words |= {form for form in _with_capitals(own_words.difference(CLITICS)) if is_function_word(form)}
        yield from (Entry(mark, role) for role, marks in _MARKS.items() for mark in marks)
    for word in sorted(words):
        # "Will" and "Us" are function words at the beginning of a sentence only.
        yield Entry(word, "word", counts=not (passes and word.casefold() in FUNCTION_WORDS))


def _with_capitals(words: Iterable[str]) -> Iterator[str]:
    """The words, each as it is and with a capital."""
    for word in words:
        yield from (word, word[:1].upper() + word[1:])


def _language(tokenizer: HuggingFaceTokenizer, entries: tuple[Entry, ...], least: int) -> Automaton:
    return listed_words(tokenizer, entries, least)
