"""What holds a text to stating the values of fields: for each one of the phrases that state it, and none of another's.

A classifier chooses well what a text speaks of, but lets the words of a name fall apart. The phrases are those of the
corpus (``Wordings.said``), found in it by the check's own rule; where a value has none there, its own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from dlmctl import BatchContext, Prepared
from dlmctl.control.automata import (
    Alphabet,
    Automaton,
    Demand,
    HeldWords,
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

from .semantic_params import SemanticParams
from .wordings import Wordings, contradiction, statement

# What a word loses that would break a phrase: too much to be taken, unless what must hold exactly wants it.
BROKEN = 30.0
# States of what the fields of a text ask together; more fields than that leaves room for are left to the classifier.
MOST_STATES = 1024

Phrases = tuple[tuple[int, ...], ...]


class Stated(Prepared):
    """Guidance by a classifier, and words held to phrases as far as nothing exact stands against it.

    Args:
        guided: by the classifier.
        held: the phrases of each row.
    """

    def __init__(self, guided: Prepared, held: HeldWords) -> None:
        self.guided, self.words = guided, held

    def energy(self, state: ControlState) -> Tensor:
        return self.guided.energy(state)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        held = self.words.constrain(logits, t)
        return torch.where(torch.isneginf(held), logits - BROKEN, held)


def stated(
    guided: Prepared, batch: BatchContext[SemanticParams], wordings: Wordings, known: Mapping[str, Sequence[str]]
) -> Prepared:
    """The classifier alone where a model has no whole words, or nothing can be said of any row.

    Args:
        known: the values that the corpus has of each field, by its key.
    """
    if not isinstance(batch.vocabulary, WordTokenizer):
        return guided
    rows = []
    for params, layout in zip(batch.params, batch.layouts, strict=True):
        most = layout.positions - SPECIAL if layout.words is None else layout.words
        rows.append([Demand("semantic", _language(params, batch.vocabulary, wordings, known, most, layout.words))])
    return Stated(guided, HeldWords(batch, rows))


def _language(
    params: SemanticParams,
    vocabulary: WordTokenizer,
    wordings: Wordings,
    known: Mapping[str, Sequence[str]],
    most: int,
    words: int | None,
) -> Automaton:
    """The texts that state every field, without those fields that cannot be had together, or not in so many words."""
    alphabet = alphabet_of(vocabulary)
    whole = everything(alphabet)
    for field, value in params.fields.items():
        own = phrases_for(wordings, field, value, vocabulary, natural=params.match == "natural")
        if not own:
            continue
        others = known.get(field_key(field), ()) if params.excludes else ()
        against = _against(wordings, field, value, tuple(others), vocabulary)
        for wanted in (_saying(alphabet, own, against), _saying(alphabet, own, ())):
            try:
                joint = intersection(whole, wanted, MOST_STATES)
            except TooLarge:
                continue
            fits = possible_lengths(Language(joint), most)
            if not joint.empty and (fits.any() if words is None else fits[words]):
                whole = joint
                break
    return whole


def phrases_for(
    wordings: Wordings, field: str, value: Value, vocabulary: WordTokenizer, *, natural: bool
) -> tuple[tuple[int, ...], ...]:
    """The phrases, as ids, that state a value by themselves; none where there is no such phrase of known words."""
    words = value_words(value)
    of_field = wordings.said.get(field_key(field), {})
    said = next((found for name, found in of_field.items() if name.lower() == words.lower()), [])
    own = [] if words.lower() in ("yes", "no") and natural else [words]
    phrases = (phrase.split() for phrase in (said if natural and said else [*said, *own]))
    stating = [phrase for phrase in phrases if statement(wordings, field, value, phrase, natural=natural) is not None]
    ids = [tuple(vocabulary.encode(phrase)[1:-1]) for phrase in stating]
    return tuple(dict.fromkeys(row for row in ids if vocabulary.unk_id not in row))


def _against(
    wordings: Wordings, field: str, value: Value, others: tuple[str, ...], vocabulary: WordTokenizer
) -> Phrases:
    """The phrases that state another value of a field."""
    found = []
    for other in others:
        for phrase in phrases_for(wordings, field, other, vocabulary, natural=True):
            if contradiction(wordings, field, value, [other], vocabulary.words(phrase)) is not None:
                found.append(phrase)
    return tuple(found)


@lru_cache(maxsize=512)
def _saying(alphabet: Alphabet, own: Phrases, against: Phrases) -> Automaton:
    """The texts with one of the phrases ``own`` at least, and none of those ``against`` them."""
    saying = complement(avoiding(alphabet, own))
    return intersection(saying, avoiding(alphabet, against)) if against else saying
