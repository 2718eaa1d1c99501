"""Exact controls as prepared controls: what each asks of a row's words, joined into one automaton a row."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache
from typing import Any, cast

from torch import Tensor

from dlmctl.control.automata.dfa import Automaton, TooLarge
from dlmctl.control.automata.held import SHARPNESS, Demand, Held, language_of
from dlmctl.control.automata.languages import Alphabet, ended
from dlmctl.control.automata.phrases import Language
from dlmctl.control.automata.product import complement
from dlmctl.control.prepared import Part, Prepared
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.errors import RecipeError
from dlmctl.text.tokenizer import Tokenizer


def alphabet_of(vocabulary: Tokenizer) -> Alphabet:
    """The words that texts are made of: those of a vocabulary without START, END, PAD and UNK."""
    return _alphabet_of(cast("Hashable", vocabulary))


@lru_cache(maxsize=2)
def _alphabet_of(vocabulary: Any) -> Alphabet:
    special = {vocabulary.start_id, vocabulary.end_id, vocabulary.pad_id, vocabulary.unk_id}
    return Alphabet([None if token in special else vocabulary.words([token])[0] for token in range(len(vocabulary))])


class HeldWords(Prepared):
    """Holds each row to its demands, exactly. The automata are built when first needed, so that several of these can
    be ``merged`` before.

    Args:
        demands: of each row of the batch.
    """

    exact = True

    def __init__(self, batch: BatchContext[Any], demands: Sequence[Sequence[Demand]]) -> None:
        self.batch, self.demands = batch, [list(row) for row in demands]

    @cached_property
    def held(self) -> Held:
        """The languages of the rows.

        Raises:
            RecipeError: the demands of a row exclude each other, or its number of words.
        """
        vocabulary, layouts = self.batch.vocabulary, self.batch.layouts
        alphabet = alphabet_of(vocabulary)
        made: dict[tuple[object, ...], Language] = {}
        languages = []
        for demands, layout in zip(self.demands, layouts, strict=True):
            # Rows that ask for the same share one automaton.
            key = (layout.words is None, *((id(demand.automaton), demand.phrases) for demand in demands))
            if key not in made:
                made[key] = self._language(demands, alphabet)
                if layout.words is None:
                    made[key] = Language(ended(_whole(made[key]), vocabulary.end_id, vocabulary.pad_id))
            languages.append(made[key])
        return Held(
            languages,
            [layout.positions - 1 if layout.words is None else layout.words for layout in layouts],
            alphabet=alphabet,
            longest=self.batch.model.config.length - 2,
            names=[" and ".join(dict.fromkeys(demand.name for demand in row)) for row in self.demands],
            sharpness=[SHARPNESS if any(demand.phrases for demand in row) else 1.0 for row in self.demands],
            device=self.batch.device,
        )

    @staticmethod
    def _language(demands: Sequence[Demand], alphabet: Alphabet) -> Language:
        try:
            return language_of(demands, alphabet)
        except RecipeError as error:
            where = error.where or " and ".join(dict.fromkeys(demand.name for demand in demands))
            raise RecipeError(error.what, where=where, remedy=error.remedy) from None

    def energy(self, state: ControlState) -> Tensor:
        """-log p(the text is in the language), the words taken as independent."""
        return -self.held.log_probability(state.word_log_probs)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        return self.held.constrain(logits, t)

    def verify(self, logits: Tensor) -> None:
        self.held.verify(logits)

    def negated(self) -> HeldWords:
        """What holds each row to the contrary of its demands, as exactly.

        Raises:
            RecipeError: every text satisfies the demands of a row.
            TooLarge: a row asks for too many phrases.
        """
        alphabet = alphabet_of(self.batch.vocabulary)
        rows = []
        for demands in self.demands:
            name = f"not {' and '.join(demand.name for demand in demands)}"
            rows.append([Demand(name, complement(_whole(language_of(demands, alphabet))))])
        return HeldWords(self.batch, rows)


def merged(parts: Sequence[Part]) -> list[Part]:
    """The parts with all that are ``HeldWords`` made one, in the place of the first.

    Conditioned one after the other, each undoes a little of the last and none is exact.
    """
    exact = [part for part in parts if isinstance(part.prepared, HeldWords)]
    if len(exact) < 2:
        return list(parts)
    held = [part.prepared for part in parts if isinstance(part.prepared, HeldWords)]
    rows = [[demand for row in same for demand in row] for same in zip(*(one.demands for one in held), strict=True)]
    name = " and ".join(part.name for part in exact)
    weight = sum(part.weight for part in exact) / len(exact)
    whole = Part(name, weight, HeldWords(held[0].batch, rows))
    return [whole if part is exact[0] else part for part in parts if part is exact[0] or part not in exact]


def _whole(language: Language) -> Automaton:
    if language.phrases:
        raise TooLarge(
            f"{len(language.phrases)} phrases in any order are too many here.",
            remedy="Ask for fewer, and not under `any` or `not`.",
        )
    return language.automaton
