"""Constraint that a text states the values of fields: for each a phrase that states it, and none for another value.

A classifier is good at choosing what a text is about, but lets the words of a name fall apart. The phrases are those of
the corpus (``Wordings.said``), found in it by the check's own rule; a value without any there has its own words.
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

# The largest penalty, in nats, of a word that would break a phrase: enough to exclude it, unless an exact control
# requires it.
MAX_PENALTY = 30.0
# The most states of the joint automaton of a text's fields; fields that would exceed it are left to the classifier.
MAX_STATES = 1024
# The number of phrases of each other value that are excluded from a text.
MAX_EXCLUDED = 4

Phrases = tuple[tuple[int, ...], ...]


class WithPhrases(Prepared):
    """Guidance by a classifier, with words constrained to phrases unless an exact control forbids it.

    Args:
        guided: the guidance by the classifier.
        words: the constraint to the phrases of each row.
    """

    def __init__(self, guided: Prepared, words: ExactWords) -> None:
        self.guided, self.words = guided, words

    def energy(self, state: ControlState) -> Tensor:
        return self.guided.energy(state)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        constrained = self.words.constrain(logits, t)
        return torch.maximum(constrained, logits - MAX_PENALTY)


class PhraseBook:
    """The phrases of a corpus for the values of fields, in the words of a model.

    Args:
        known: the values of each field in the corpus, by its key.
    """

    def __init__(self, wordings: Wordings, vocabulary: WordTokenizer, known: Mapping[str, Sequence[str]]) -> None:
        self.wordings, self.vocabulary, self.known = wordings, vocabulary, known
        # A cache, because every batch needs the automata anew, and again for its remaining texts.
        self.automata: dict[tuple[str, str, bool, bool], tuple[Automaton, ...]] = {}

    def phrases(self, field: str, value: Value, *, natural: bool) -> Phrases:
        """The phrases that state a value by themselves; empty if there is none of known words."""
        words = value_words(value)
        by_value = self.wordings.said.get(field_key(field), {})
        in_corpus = next((phrases for name, phrases in by_value.items() if name.lower() == words.lower()), [])
        verbatim = [] if words.lower() in ("yes", "no") and natural else [words]
        candidates = [phrase.split() for phrase in (in_corpus if natural and in_corpus else [*in_corpus, *verbatim])]
        stating = [
            phrase
            for phrase in candidates
            if statement(self.wordings, field, value, phrase, natural=natural) is not None
        ]
        token_ids = [tuple(self.vocabulary.encode(phrase)[1:-1]) for phrase in stating]
        return tuple(dict.fromkeys(ids for ids in token_ids if self.vocabulary.unk_id not in ids))

    def languages(self, field: str, value: Value, params: SemanticParams) -> tuple[Automaton, ...]:
        """The texts that state a value and no other one, then those that state it at all; empty if it has no
        phrases."""
        key = (field_key(field), value_words(value), params.match == "natural", params.excludes)
        if key not in self.automata:
            own, alphabet = self.phrases(field, value, natural=key[2]), alphabet_of(self.vocabulary)
            contradicting = self._contradicting(field, value) if params.excludes else ()
            # A denial contains the words that state the value: "not family - friendly".
            excluded = [
                phrase for phrase in contradicting if not any(occurrences(own_phrase, phrase) for own_phrase in own)
            ]
            stating = [complement(avoiding(alphabet, own))] if own else []
            exclusive = [intersection(language, avoiding(alphabet, excluded)) for language in stating if excluded]
            self.automata[key] = (*exclusive, *stating)
        return self.automata[key]

    def _contradicting(self, field: str, value: Value) -> Phrases:
        """The most frequent phrases that state another value of a field."""
        contradicting = []
        for other in self.known.get(field_key(field), ()):
            for phrase in self.phrases(field, other, natural=True)[:MAX_EXCLUDED]:
                words = self.vocabulary.words(phrase)
                if contradiction(self.wordings, field, value, [other], words) is not None:
                    contradicting.append(phrase)
        return tuple(contradicting)


def with_stated_phrases(guided: Prepared, batch: BatchContext[SemanticParams], book: PhraseBook) -> Prepared:
    """Guidance by a classifier, with words constrained to the phrases of a book."""
    rows = []
    for params, layout in zip(batch.params, batch.layouts, strict=True):
        most = layout.positions - SPECIAL if layout.words is None else layout.words
        rows.append([Demand("semantic", _language(params, book, most, layout.words))])
    return WithPhrases(guided, ExactWords(batch, rows))


def _language(params: SemanticParams, book: PhraseBook, most: int, word_count: int | None) -> Automaton:
    """The texts that state every field, except fields that cannot be combined, or not within this number of words."""
    combined: Automaton | None = None
    for field, value in params.fields.items():
        for language in book.languages(field, value, params):
            try:
                joint = language if combined is None else intersection(combined, language, MAX_STATES)
            except TooLarge:
                continue
            fits = possible_lengths(Language(joint), most)
            if not joint.empty and (fits.any() if word_count is None else fits[word_count]):
                combined = joint
                break
    return everything(alphabet_of(book.vocabulary)) if combined is None else combined
