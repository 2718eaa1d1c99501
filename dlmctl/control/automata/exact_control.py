"""Exact controls on any model: what is asked of each row, over the words or the tokens that the model has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmctl.control.automata.dfa import Automaton
from dlmctl.control.automata.exact_tokens import ExactTokens
from dlmctl.control.automata.exact_words import ExactWords, alphabet_of
from dlmctl.control.automata.joint import Demand
from dlmctl.control.automata.languages import Alphabet, nothing
from dlmctl.control.automata.requirement import Requirement
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext
from dlmctl.errors import Unknown, Unmet
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.vocabulary import known_ids


def exact_control(batch: BatchContext[Any], asked: Sequence[Requirement]) -> Prepared:
    """Holds each text of a batch to what is asked of it, exactly and whatever other controls ask for.

    Raises:
        Unknown: a word that a text needs is none of the model's; not where that is unwanted.
        RecipeError: no text satisfies what is asked.
    """
    if isinstance(batch.vocabulary, HuggingFaceTokenizer):
        return ExactTokens(batch, [[one] for one in asked])
    # Rows that ask for the same share one automaton.
    distinct = {one.key: one for one in asked}.values()
    made = {one.key: _over_words(one, batch.vocabulary, unwanted=batch.unwanted) for one in distinct}
    return ExactWords(batch, [[made[one.key]] for one in asked])


def _over_words(asked: Requirement, vocabulary: Tokenizer, *, unwanted: bool) -> Demand:
    alphabet = alphabet_of(vocabulary)
    if asked.needs_words:
        try:
            known_ids(asked.words, vocabulary, asked.name)
        except Unknown:
            if not unwanted:
                raise
            return Demand(asked.name, _without_unknown(asked, alphabet))
    phrases = tuple(tuple(vocabulary.encode(phrase)[1:-1]) for phrase in asked.phrases)
    return Demand(asked.name, asked.language and asked.language(alphabet), phrases)


def _without_unknown(asked: Requirement, alphabet: Alphabet) -> Automaton | None:
    """The language of what is asked where some of its words are none of the model's: without phrases of such words
    there is no text, and a pattern may be met without them."""
    try:
        return nothing(alphabet) if asked.language is None else asked.language(alphabet)
    except Unmet:
        return nothing(alphabet)
