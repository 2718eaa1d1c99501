"""Exact controls on models whose tokens are parts of words: one automaton over tokens per row."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache

import numpy as np

from dlmctl.control.automata.dfa import DEAD, Automaton, TooLarge
from dlmctl.control.automata.exact_rows import ExactRows
from dlmctl.control.automata.joint import SHARPNESS, JointAutomata
from dlmctl.control.automata.languages import Alphabet, ended, everything, in_order, stopped
from dlmctl.control.automata.lifted import (
    MAX_SPARSE_CELLS,
    MAX_SPARSE_STATES,
    MAX_SPARSE_TRANSITIONS,
    MAX_TOKEN_CELLS,
    Units,
    characters_for,
    lifted,
    units_of,
)
from dlmctl.control.automata.phrases import Language, with_phrases
from dlmctl.control.automata.product import complement, intersect_all, intersection
from dlmctl.control.automata.requirement import Requirement
from dlmctl.control.automata.spelled import Spelled, alphabet_for, too_large
from dlmctl.errors import RecipeError, UnsatisfiableError
from dlmctl.text.characters import FORBIDDEN, kind
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.tokens import plain_words
from dlmctl.text.written_spaces import Spaces, spaces_between


class ExactTokens(ExactRows[Requirement]):
    """Makes the text of each row satisfy the requirements on its words exactly, on models of tokens."""

    @property
    def tokenizer(self) -> HuggingFaceTokenizer:
        assert isinstance(self.batch.vocabulary, HuggingFaceTokenizer)
        return self.batch.vocabulary

    @cached_property
    def languages(self) -> list[Automaton]:
        """The language of each row over tokens, for any number of tokens.

        Raises:
            RecipeError: no text satisfies all requirements of a row.
        """
        return [token_language(self.tokenizer, row) for row in self.demands]

    def weighing_lengths(self) -> list[Automaton]:
        """The languages of those requirements of each row that weigh numbers of tokens; not of rows without any."""
        weighing = [[required for required in row if required.weighs_lengths] for row in self.demands]
        return [token_language(self.tokenizer, row) for row in weighing if row]

    @cached_property
    def joint(self) -> JointAutomata:
        vocabulary, layouts = self.batch.vocabulary, self.batch.layouts
        # Rows with the same requirements share one automaton.
        open_ended = {id(language): _ended(language, vocabulary) for language in self.languages}
        automata = [
            open_ended[id(language)] if layout.words is None else language
            for language, layout in zip(self.languages, layouts, strict=True)
        ]
        return JointAutomata(
            [Language(automaton) for automaton in automata],
            [layout.open for layout in layouts],
            alphabet=alphabet_for([]),
            longest=self.batch.model.config.length - 2,
            names=[_joined_names(row) for row in self.demands],
            sharpness=[SHARPNESS if any(required.phrases for required in row) else 1.0 for row in self.demands],
            unit="token",
            device=self.batch.device,
        )

    def negated(self) -> ExactTokens | None:
        if not all(required.has_complement for row in self.demands for required in row):
            return None
        rows = [[_negation(row)] if row else [] for row in self.demands]
        return ExactTokens(self.batch, rows)


def _ended(language: Automaton, vocabulary: Tokenizer) -> Automaton:
    """A language with the tokens that follow a text whose number of tokens is not settled."""
    if isinstance(vocabulary, CheckpointTokenizer):
        return stopped(language, vocabulary.stop_ids)
    return ended(language, vocabulary.end_id, vocabulary.pad_id)


# The languages that were asked for last, or why there are none. Limits on how many there are, and on the cells of their
# tables and classes: half a gigabyte.
_cache: dict[tuple[Hashable, ...], Automaton | RecipeError] = {}
_CACHED, _CACHED_CELLS = 1 << 10, 1 << 26


def token_language(tokenizer: HuggingFaceTokenizer, requirements: Sequence[Requirement]) -> Automaton:
    """The language, over tokens, of the texts that satisfy all requirements; cached.

    Raises:
        RecipeError: there is no such text, or the tokenizer cannot spell a word that the text needs.
        TooLarge: its automaton would be too large.
    """
    key = (tokenizer, *((required.name, required.key, required.written) for required in requirements))
    language = _cache.pop(key, None) or _language_or_fault(tokenizer, requirements)
    _cache[key] = language  # the last one
    # Threads may draw side by side: a copy is not changed while it is read.
    kept = list(_cache.items())
    cells = sum(_cells_of(each) for _, each in kept)
    for count, (oldest, each) in enumerate(kept[:-1]):
        if cells <= _CACHED_CELLS and len(kept) - count <= _CACHED:
            break
        cells -= _cells_of(each)
        _cache.pop(oldest, None)
    if isinstance(language, RecipeError):
        raise type(language)(language.what, where=language.where, remedy=language.remedy)
    return language


def _cells_of(language: Automaton | RecipeError) -> int:
    return 0 if isinstance(language, RecipeError) else language.table.size + language.classes.size


def _language_or_fault(tokenizer: HuggingFaceTokenizer, requirements: Sequence[Requirement]) -> Automaton | RecipeError:
    """The language, or why there is none: what is too large takes long to find out, and each draw asks again."""
    try:
        return _token_language(tokenizer, requirements)
    except RecipeError as error:
        # A new one, since the traceback holds all that was built.
        return type(error)(error.what, where=error.where, remedy=error.remedy)


def _token_language(tokenizer: HuggingFaceTokenizer, requirements: Sequence[Requirement]) -> Automaton:
    """``token_language``, with the spaces of the recipe unless there is no such text."""
    try:
        return _language_as_written(tokenizer, requirements)
    except RecipeError:
        if not _spaces(tokenizer, requirements):
            raise
    return _language_as_written(tokenizer, [required._replace(written=()) for required in requirements])


def _language_as_written(tokenizer: HuggingFaceTokenizer, requirements: Sequence[Requirement]) -> Automaton:
    about_words = [required for required in requirements if required.over_tokens is None]
    # Phrases may need to be in one order.
    phrases = [required for required in about_words if required.phrases]
    groups = [phrases] * bool(phrases) + [[required] for required in about_words if not required.phrases]
    if len(groups) > 1 and all(required.stands_alone for required in about_words):
        # Spelled out alone, the same requirement serves beside others, and a product of small automata takes less time.
        others = [required for required in requirements if required.over_tokens is not None]
        # Where that is too large, together they may be smaller; where there is no text, more is known about why.
        with contextlib.suppress(RecipeError):
            apart = [(_joined_names(group), token_language(tokenizer, group)) for group in groups]
            return _intersected(apart, tokenizer, others)
    spelled = [(_joined_names(about_words), _spelled_language(tokenizer, about_words))] if about_words else []
    try:
        return _intersected(spelled, tokenizer, requirements)
    except TooLarge:
        if all(required.fewer_over_tokens is None for required in requirements):
            raise
    fewer = [
        required._replace(over_tokens=required.fewer_over_tokens or required.over_tokens) for required in requirements
    ]
    return _intersected(spelled, tokenizer, fewer)


def _intersected(
    spelled: Sequence[tuple[str, Automaton]], tokenizer: HuggingFaceTokenizer, requirements: Sequence[Requirement]
) -> Automaton:
    """The language of requirements over tokens and, ``spelled``, of those on words.

    Raises:
        RecipeError: as ``token_language``.
    """
    try:
        parts = [*spelled]
        parts += [(required.name, required.over_tokens(tokenizer)) for required in requirements if required.over_tokens]
        for name, automaton in parts:
            if automaton.empty:
                raise UnsatisfiableError("no text that this model's tokens can spell satisfies it.", where=name)
        joint = intersect_all(parts, MAX_SPARSE_STATES, MAX_SPARSE_CELLS)
        if joint.table.size > MAX_TOKEN_CELLS and np.count_nonzero(joint.table != DEAD) > MAX_SPARSE_TRANSITIONS:
            raise too_large()
    except RecipeError as error:
        where, remedies = error.where or _joined_names(requirements), [error.remedy]
        if isinstance(error, UnsatisfiableError):
            partial = [required for required in requirements if required.leaves_out]
            remedies = [*(f"`{one.name}` leaves out {one.leaves_out}." for one in partial), *remedies]
        raise type(error)(error.what, where=where, remedy=" ".join(filter(None, remedies)) or None) from None
    return joint


def _spelled_language(tokenizer: HuggingFaceTokenizer, requirements: Sequence[Requirement]) -> Automaton:
    """The language of requirements on words, spelled out in tokens; it may be empty."""
    units, name = _units(tokenizer), _joined_names(requirements)
    for required in requirements:
        if required.needs_words:
            _require_spellable(required.words, units, required.name)
    alphabet = alphabet_for(sorted({word for required in requirements for word in required.words}))
    characters, size_error = characters_for(units), TooLarge("")
    spaces = _spaces(tokenizer, requirements)
    has_phrases = any(required.phrases for required in requirements)
    for language in (_in_any_order, _in_given_order) if has_phrases else (_in_any_order,):
        try:
            return lifted(Spelled(language(requirements, alphabet), alphabet, characters, spaces), units)
        except TooLarge as error:
            size_error = error
        except RecipeError as error:
            raise type(error)(error.what, where=error.where or name, remedy=error.remedy) from None
    raise RecipeError(size_error.what, where=name, remedy=size_error.remedy)


def _spaces(tokenizer: HuggingFaceTokenizer, requirements: Sequence[Requirement]) -> Spaces:
    """The spaces between named words that the recipe settles."""
    return spaces_between([text for required in requirements for text in required.written], tokenizer.respelled)


@lru_cache(maxsize=2)
def _units(tokenizer: HuggingFaceTokenizer) -> Units:
    return units_of(tokenizer.strings)


def _joined_names(requirements: Sequence[Requirement]) -> str:
    return " and ".join(dict.fromkeys(required.name for required in requirements))


def _in_any_order(requirements: Sequence[Requirement], alphabet: Alphabet) -> Automaton:
    """The language over words, with the phrases in any order.

    Raises:
        TooLarge: there are too many phrases.
    """
    language = with_phrases(_without_phrases(requirements, alphabet), _phrases(requirements, alphabet), alphabet)
    if language.phrases:
        raise TooLarge("these are too many phrases for any order.")
    return language.automaton


def _in_given_order(requirements: Sequence[Requirement], alphabet: Alphabet) -> Automaton:
    """The language over words, with the phrases in the order of the requirements; a smaller automaton."""
    phrases = _phrases(requirements, alphabet)
    base = _without_phrases(requirements, alphabet)
    return intersection(base, in_order(alphabet, phrases))


def _without_phrases(requirements: Sequence[Requirement], alphabet: Alphabet) -> Automaton:
    """The language over words of all requirements except phrases."""
    languages = [(required.name, required.language(alphabet)) for required in requirements if required.language]
    parts = [(name, language) for name, language in languages if language is not None]
    return intersect_all(parts) if parts else everything(alphabet)


def _phrases(requirements: Sequence[Requirement], alphabet: Alphabet) -> list[tuple[int, ...]]:
    return [tuple(alphabet.ids[word] for word in phrase) for required in requirements for phrase in required.phrases]


def _negation(row: Sequence[Requirement]) -> Requirement:
    """The requirement that a text does not satisfy all of ``row``."""
    name = f"not {_joined_names(row)}"
    key = ("not", *((required.name, required.key) for required in row))
    row = [required._replace(written=()) for required in row]  # a violation is about words alone
    if any(required.over_tokens is not None for required in row):
        return Requirement(name, key, over_tokens=lambda tokenizer: complement(token_language(tokenizer, row)))
    words = tuple(word for required in row for word in required.words)
    return Requirement(name, key, words, lambda alphabet: complement(_in_any_order(row, alphabet)), needs_words=False)


def _require_spellable(words: Sequence[str], units: Units, control: str) -> None:
    known = frozenset(units.characters)
    for word in words:
        has_forbidden = any(kind(character) == FORBIDDEN for character in word)
        if has_forbidden or "://" in word or plain_words(word) != [word] or _is_address(word):
            raise RecipeError(
                f"{word!r} cannot be enforced exactly on a model of tokens.",
                where=control,
                remedy="Leave out web and mail addresses, opening quotation marks like \u2018, and accents apart from "
                "their letters.",
            )
        unknown = [character for character in word if character not in known and not units.has_partial_characters]
        if unknown:
            raise RecipeError(f"the model's tokens cannot spell {unknown[0]!r} of {word!r}.", where=control)


def _is_address(word: str) -> bool:
    return "@" in word[:-1] or word.lower().startswith("www.")
