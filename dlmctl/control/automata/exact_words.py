"""Exact controls on models of whole words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

from dlmctl.control.automata.dfa import Automaton, TooLarge
from dlmctl.control.automata.exact_rows import ExactRows
from dlmctl.control.automata.joint import SHARPNESS, Demand, JointAutomata, language_of
from dlmctl.control.automata.languages import Alphabet, ended
from dlmctl.control.automata.phrases import Language
from dlmctl.control.automata.product import complement
from dlmctl.errors import RecipeError
from dlmctl.text.tokenizer import Tokenizer


@lru_cache(maxsize=2)
def alphabet_of(vocabulary: Tokenizer) -> Alphabet:
    """The words of a vocabulary, without START, END, PAD and UNK."""
    special = {vocabulary.start_id, vocabulary.end_id, vocabulary.pad_id, vocabulary.unk_id}
    return Alphabet([None if token in special else vocabulary.words([token])[0] for token in range(len(vocabulary))])


class ExactWords(ExactRows[Demand]):
    """Makes the words of each row satisfy its demands exactly, on models of whole words."""

    @cached_property
    def joint(self) -> JointAutomata:
        vocabulary, layouts = self.batch.vocabulary, self.batch.layouts
        alphabet = alphabet_of(vocabulary)
        by_key: dict[tuple[object, ...], Language] = {}
        languages = []
        for demands, layout in zip(self.demands, layouts, strict=True):
            # Rows with the same demands share one automaton.
            key = (layout.words is None, *((id(demand.automaton), demand.phrases) for demand in demands))
            if key not in by_key:
                by_key[key] = self._language(demands, alphabet)
                if layout.words is None:
                    complete = _complete_automaton(by_key[key], _joined_names(demands))
                    by_key[key] = Language(ended(complete, vocabulary.end_id, vocabulary.pad_id))
            languages.append(by_key[key])
        return JointAutomata(
            languages,
            [layout.open for layout in layouts],
            alphabet=alphabet,
            longest=self.batch.model.config.length - 2,
            names=[_joined_names(row) for row in self.demands],
            sharpness=[SHARPNESS if any(demand.phrases for demand in row) else 1.0 for row in self.demands],
            device=self.batch.device,
        )

    @staticmethod
    def _language(demands: Sequence[Demand], alphabet: Alphabet) -> Language:
        try:
            return language_of(demands, alphabet)
        except RecipeError as error:
            raise type(error)(error.what, where=error.where or _joined_names(demands), remedy=error.remedy) from None

    def negated(self) -> ExactWords:
        alphabet = alphabet_of(self.batch.vocabulary)
        rows = []
        for demands in self.demands:
            name = f"not {' and '.join(demand.name for demand in demands)}"
            rows.append([Demand(name, complement(_complete_automaton(language_of(demands, alphabet), name)))])
        return ExactWords(self.batch, rows)


def _joined_names(demands: Sequence[Demand]) -> str:
    return " and ".join(dict.fromkeys(demand.name for demand in demands))


def _complete_automaton(language: Language, name: str) -> Automaton:
    """The automaton of a language, which must include its phrases; ``name`` is for the message.

    Raises:
        TooLarge: it has too many phrases for that.
    """
    if language.phrases:
        raise TooLarge(
            f"{len(language.phrases)} phrases in any order are too many here.",
            where=name,
            remedy="Ask for fewer phrases, and not under `any` or `not`.",
        )
    return language.automaton
