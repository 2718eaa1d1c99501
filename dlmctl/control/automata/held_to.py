"""Exact controls on any model: what is asked of each row, over the words or the tokens that the model has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmctl.control.automata.asked import Asked
from dlmctl.control.automata.held import Demand
from dlmctl.control.automata.tokens import HeldTokens
from dlmctl.control.automata.words import HeldWords, alphabet_of
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.vocabulary import known_ids


def held_to(batch: BatchContext[Any], asked: Sequence[Asked]) -> Prepared:
    """Holds each text of a batch to what is asked of it, exactly and whatever other controls ask for.

    Raises:
        RecipeError: a word that a text needs is none of the model's, or no text satisfies what is asked.
    """
    if isinstance(batch.vocabulary, HuggingFaceTokenizer):
        return HeldTokens(batch, [[one] for one in asked])
    # Rows that ask for the same share one automaton.
    made = {one.key: _over_words(one, batch.vocabulary) for one in {one.key: one for one in asked}.values()}
    return HeldWords(batch, [[made[one.key]] for one in asked])


def _over_words(asked: Asked, vocabulary: Tokenizer) -> Demand:
    if asked.needs_words:
        known_ids(asked.words, vocabulary, asked.name)
    phrases = tuple(tuple(vocabulary.encode(phrase)[1:-1]) for phrase in asked.phrases)
    return Demand(asked.name, asked.language and asked.language(alphabet_of(vocabulary)), phrases)
