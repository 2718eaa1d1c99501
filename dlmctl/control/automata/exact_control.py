"""Exact controls on any model: the requirements of each row, over the model's words or tokens."""

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
from dlmctl.errors import UnknownWordError, UnsatisfiableError
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.vocabulary import known_ids


def exact_control(batch: BatchContext[Any], requirements: Sequence[Requirement]) -> Prepared:
    """A control that makes each text of a batch satisfy its requirement exactly, whatever other controls require.

    Raises:
        Unknown: the model does not know a word that a text needs; not raised if the requirement is negated.
        RecipeError: no text satisfies a requirement.
    """
    if isinstance(batch.vocabulary, HuggingFaceTokenizer):
        return ExactTokens(batch, [[requirement] for requirement in requirements])
    # Rows with the same requirement share one automaton.
    distinct = {requirement.key: requirement for requirement in requirements}
    demands = {
        key: _over_words(requirement, batch.vocabulary, unwanted=batch.unwanted)
        for key, requirement in distinct.items()
    }
    return ExactWords(batch, [[demands[requirement.key]] for requirement in requirements])


def _over_words(requirement: Requirement, vocabulary: Tokenizer, *, unwanted: bool) -> Demand:
    """The demand of a requirement over the words of a vocabulary."""
    alphabet = alphabet_of(vocabulary)
    if requirement.needs_words:
        try:
            known_ids(requirement.words, vocabulary, requirement.name)
        except UnknownWordError:
            if not unwanted:
                raise
            return Demand(requirement.name, _without_unknown(requirement, alphabet))
    phrases = tuple(tuple(vocabulary.encode(phrase)[1:-1]) for phrase in requirement.phrases)
    return Demand(requirement.name, requirement.language and requirement.language(alphabet), phrases)


def _without_unknown(requirement: Requirement, alphabet: Alphabet) -> Automaton | None:
    """The language of a requirement with words that the model does not know.

    It is empty if the requirement consists of phrases; a pattern may match without the unknown words.
    """
    try:
        return nothing(alphabet) if requirement.language is None else requirement.language(alphabet)
    except UnsatisfiableError:
        return nothing(alphabet)
