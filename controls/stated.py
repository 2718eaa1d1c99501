"""What holds a text to stating the values of fields: for each one of the phrases that state it, and none of another's.

A classifier chooses well what a text speaks of, but lets the words of a name fall apart. The phrases are those of the
corpus (``Wordings.said``), found in it by the check's own rule; where a value has none there, its own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dlmctl import BatchContext, Prepared
from dlmctl.control.automata import (
    Automaton,
    Demand,
    ExactWords,
    TooLarge,
    alphabet_of,
    avoiding,
    complement,
    everything,
    intersection,
    possible_lengths,
)
from dlmctl.control.automata.phrases import Language
from dlmctl.control.state import ControlState
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.text.fields import Value, field_key, value_words
from dlmctl.text.tokenizer import WordTokenizer

from .phrases import occurrences
from .semantic_params import SemanticParams
from .wordings import Wordings, contradiction, statement

# What a word loses at most that would break a phrase: too much to be taken, unless what must hold exactly wants it.
BROKEN = 30.0
# States of what the fields of a text ask together; more fields than that leaves room for are left to the classifier.
MOST_STATES = 1024
# Phrases of each other value that are kept out of a text.
MOST_AGAINST = 4

Phrases = tuple[tuple[int, ...], ...]


class Stated(Prepared):
    """Guidance by a classifier, and words held to phrases as far as nothing exact stands against it.

    Args:
        guided: by the classifier.
        held: the phrases of each row.
    """

    def __init__(self, guided: Prepared, held: ExactWords) -> None:
        self.guided, self.words = guided, held

    def energy(self, state: ControlState) -> Tensor:
        return self.guided.energy(state)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        held = self.words.constrain(logits, t)
        return torch.maximum(held, logits - BROKEN)


class Book:
    """What a corpus says of the values of fields, in the words of a model.

    Args:
        known: the values that the corpus has of each field, by its key.
    """

    def __init__(self, wordings: Wordings, vocabulary: WordTokenizer, known: Mapping[str, Sequence[str]]) -> None:
        self.wordings, self.vocabulary, self.known = wordings, vocabulary, known
        # Every batch asks anew, and once more for what is left of it.
        self.made: dict[tuple[str, str, bool, bool], tuple[Automaton, ...]] = {}

    def phrases(self, field: str, value: Value, *, natural: bool) -> Phrases:
        """The phrases that state a value by themselves; none where there is no such phrase of known words."""
        words = value_words(value)
        of_field = self.wordings.said.get(field_key(field), {})
        said = next((found for name, found in of_field.items() if name.lower() == words.lower()), [])
        own = [] if words.lower() in ("yes", "no") and natural else [words]
        phrases = [phrase.split() for phrase in (said if natural and said else [*said, *own])]
        stating = [one for one in phrases if statement(self.wordings, field, value, one, natural=natural) is not None]
        ids = [tuple(self.vocabulary.encode(phrase)[1:-1]) for phrase in stating]
        return tuple(dict.fromkeys(row for row in ids if self.vocabulary.unk_id not in row))

    def languages(self, field: str, value: Value, params: SemanticParams) -> tuple[Automaton, ...]:
        """The texts that state a value and none against it, then those that state it at all; none where it has no
        phrases."""
        key = (field_key(field), value_words(value), params.match == "natural", params.excludes)
        if key not in self.made:
            own, alphabet = self.phrases(field, value, natural=key[2]), alphabet_of(self.vocabulary)
            denied = self._against(field, value) if params.excludes else ()
            # What denies a value has the words that state it: "not family - friendly".
            against = [one for one in denied if not any(occurrences(whole, one) for whole in own)]
            stating = [complement(avoiding(alphabet, own))] if own else []
            alone = [intersection(one, avoiding(alphabet, against)) for one in stating if against]
            self.made[key] = (*alone, *stating)
        return self.made[key]

    def _against(self, field: str, value: Value) -> Phrases:
        """The commonest phrases that state another value of a field."""
        found = []
        for other in self.known.get(field_key(field), ()):
            for phrase in self.phrases(field, other, natural=True)[:MOST_AGAINST]:
                said = self.vocabulary.words(phrase)
                if contradiction(self.wordings, field, value, [other], said) is not None:
                    found.append(phrase)
        return tuple(found)


def stated(guided: Prepared, batch: BatchContext[SemanticParams], book: Book) -> Prepared:
    """Guidance by a classifier, and words held to the phrases of a book."""
    rows = []
    for params, layout in zip(batch.params, batch.layouts, strict=True):
        most = layout.positions - SPECIAL if layout.words is None else layout.words
        rows.append([Demand("semantic", _language(params, book, most, layout.words))])
    return Stated(guided, ExactWords(batch, rows))


def _language(params: SemanticParams, book: Book, most: int, words: int | None) -> Automaton:
    """The texts that state every field, without those fields that cannot be had together, or not in so many words."""
    whole: Automaton | None = None
    for field, value in params.fields.items():
        for wanted in book.languages(field, value, params):
            try:
                joint = wanted if whole is None else intersection(whole, wanted, MOST_STATES)
            except TooLarge:
                continue
            fits = possible_lengths(Language(joint), most)
            if not joint.empty and (fits.any() if words is None else fits[words]):
                whole = joint
                break
    return everything(alphabet_of(book.vocabulary)) if whole is None else whole
