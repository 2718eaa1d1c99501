"""Exact controls on models whose tokens are parts of words: what each asks of a row's words, as one automaton a row."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache

from dlmctl.control.automata.dfa import Automaton, TooLarge
from dlmctl.control.automata.exact_rows import ExactRows
from dlmctl.control.automata.joint import SHARPNESS, JointAutomata
from dlmctl.control.automata.languages import Alphabet, ended, everything, in_order, stopped
from dlmctl.control.automata.lifted import Units, characters_for, lifted, units_of
from dlmctl.control.automata.phrases import Language, with_phrases
from dlmctl.control.automata.product import complement, intersection, joined
from dlmctl.control.automata.requirement import Requirement
from dlmctl.control.automata.spelled import Spelled, alphabet_for
from dlmctl.errors import RecipeError, Unmet
from dlmctl.text.characters import FORBIDDEN, kind
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.tokens import plain_words


class ExactTokens(ExactRows[Requirement]):
    """Holds the text of each row to what is asked of its words, on models of tokens."""

    @cached_property
    def languages(self) -> list[Automaton]:
        """Of each row, over tokens, whatever their number.

        Raises:
            RecipeError: no text satisfies all that is asked of a row.
        """
        tokenizer = self.batch.vocabulary
        assert isinstance(tokenizer, HuggingFaceTokenizer)
        return [token_language(tokenizer, row) for row in self.demands]

    @cached_property
    def held(self) -> JointAutomata:
        vocabulary, layouts = self.batch.vocabulary, self.batch.layouts
        # Rows that ask for the same share one automaton.
        open_ended = {id(one): _ended(one, vocabulary) for one in self.languages}
        automata = [
            open_ended[id(one)] if layout.words is None else one
            for one, layout in zip(self.languages, layouts, strict=True)
        ]
        return JointAutomata(
            [Language(automaton) for automaton in automata],
            [layout.open for layout in layouts],
            alphabet=alphabet_for([]),
            longest=self.batch.model.config.length - 2,
            names=[_names(row) for row in self.demands],
            sharpness=[SHARPNESS if any(one.phrases for one in row) else 1.0 for row in self.demands],
            unit="token",
            device=self.batch.device,
        )

    def negated(self) -> ExactTokens:
        rows = [[_contrary(row)] if row else [] for row in self.demands]
        return ExactTokens(self.batch, rows)


def _ended(language: Automaton, vocabulary: Tokenizer) -> Automaton:
    """A language with what stands behind a text whose number of tokens is not settled."""
    if isinstance(vocabulary, CheckpointTokenizer):
        return stopped(language, vocabulary.stop_ids)
    return ended(language, vocabulary.end_id, vocabulary.pad_id)


_kept: dict[tuple[Hashable, ...], Automaton] = {}
_MOST_KEPT = 64


def token_language(tokenizer: HuggingFaceTokenizer, asked: Sequence[Requirement]) -> Automaton:
    """The texts, as tokens, that satisfy all that is asked; made once for each tokenizer.

    Raises:
        RecipeError: there is no such text, or the tokenizer cannot write a word that must be in it.
        TooLarge: its automaton would be too large.
    """
    key = (tokenizer, *((one.name, one.key) for one in asked))
    if key not in _kept:
        if len(_kept) >= _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[key] = _token_language(tokenizer, asked)
    return _kept[key]


def _token_language(tokenizer: HuggingFaceTokenizer, asked: Sequence[Requirement]) -> Automaton:
    units = _units(tokenizer)
    for one in asked:
        if one.needs_words:
            _require_written(one.words, units, one.name)
    alphabet = alphabet_for(sorted({word for one in asked for word in one.words}))
    characters, fault = characters_for(units), TooLarge("")
    for language in (_in_any_order, _in_given_order):
        try:
            made = lifted(Spelled(language(asked, alphabet), alphabet, characters), units)
            break
        except TooLarge as error:
            fault = error
        except RecipeError as error:
            raise type(error)(error.what, where=error.where or _names(asked), remedy=error.remedy) from None
    else:
        raise RecipeError(fault.what, where=_names(asked), remedy=fault.remedy)
    if made.empty:
        raise Unmet("no text that this model's tokens can write satisfies it.", where=_names(asked))
    return made


@lru_cache(maxsize=2)
def _units(tokenizer: HuggingFaceTokenizer) -> Units:
    return units_of(tokenizer.strings)


def _names(asked: Sequence[Requirement]) -> str:
    return " and ".join(dict.fromkeys(one.name for one in asked))


def _in_any_order(asked: Sequence[Requirement], alphabet: Alphabet) -> Automaton:
    """The language over words, its phrases in any order.

    Raises:
        TooLarge: there are too many.
    """
    whole = with_phrases(_beside_phrases(asked, alphabet), _phrases(asked, alphabet), alphabet)
    if whole.phrases:
        raise TooLarge("these are too many phrases for any order.")
    return whole.automaton


def _in_given_order(asked: Sequence[Requirement], alphabet: Alphabet) -> Automaton:
    """The language over words, its phrases in the order in which they are asked for, which is smaller."""
    phrases = _phrases(asked, alphabet)
    base = _beside_phrases(asked, alphabet)
    return intersection(base, in_order(alphabet, phrases)) if phrases else base


def _beside_phrases(asked: Sequence[Requirement], alphabet: Alphabet) -> Automaton:
    made = [(one.name, one.language(alphabet)) for one in asked if one.language is not None]
    parts = [(name, language) for name, language in made if language is not None]
    return joined(parts) if parts else everything(alphabet)


def _phrases(asked: Sequence[Requirement], alphabet: Alphabet) -> list[tuple[int, ...]]:
    return [tuple(alphabet.ids[word] for word in phrase) for one in asked for phrase in one.phrases]


def _contrary(row: Sequence[Requirement]) -> Requirement:
    """What is asked where the text must not satisfy all of a row."""
    name = f"not {_names(row)}"
    words = tuple(word for one in row for word in one.words)
    key = ("not", *((one.name, one.key) for one in row))
    return Requirement(name, key, words, lambda alphabet: complement(_in_any_order(row, alphabet)), needs_words=False)


def _require_written(words: Sequence[str], units: Units, control: str) -> None:
    known = frozenset(units.characters)
    for word in words:
        strange = next((one for one in word if kind(one) == FORBIDDEN), None)
        if strange is not None or "://" in word or plain_words(word) != [word] or _is_address(word):
            raise RecipeError(
                f"{word!r} cannot be held exactly on a model of tokens.",
                where=control,
                remedy="Leave out web and mail addresses, opening quotation marks like \u2018, and accents apart from "
                "their letters.",
            )
        unknown = [one for one in word if one not in known and not units.has_parts]
        if unknown:
            raise RecipeError(f"the model's tokens cannot write {unknown[0]!r} of {word!r}.", where=control)


def _is_address(word: str) -> bool:
    return ("@" in word[:-1] and len(word) > 1) or word.lower().startswith("www.")
