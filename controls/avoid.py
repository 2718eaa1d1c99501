"""Words and phrases that a text must not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.automata import Alphabet, Asked, Automaton, Demand, HeldTokens, HeldWords, alphabet_of, avoiding
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .phrases import ANY_NUMBER, MOST_PHRASES, Phrases, WordControl, occurrences, split_phrases


class AvoidParams(ControlParams):
    """What a recipe says of unwanted words."""

    words: Phrases = Field(
        max_length=MOST_PHRASES,
        description="words or phrases, none of which may occur; matched as whole words, upper and lower case as "
        "written, so list both where both are unwanted",
        examples=[["pub", "city centre"]],
    )


class Avoid(WordControl[AvoidParams]):
    """Keeps every text free of the phrases, exactly; see ``dlmctl.control.automata``."""

    name = "avoid"
    Params = AvoidParams

    def __init__(self, *phrases: str, **params: Any) -> None:
        super().__init__(**({"words": list(phrases)} if phrases else {}), **params)

    def word_range(self, params: AvoidParams) -> tuple[int, int]:
        """Any number, but a settled one: no START or PAD among the words, which would break a phrase up unseen."""
        return 1, ANY_NUMBER

    def prepare(self, batch: BatchContext[AvoidParams]) -> Prepared:
        if isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return HeldTokens(batch, [[self.asked(params)] for params in batch.params])
        return HeldWords(batch, [[self._demand(params, batch)] for params in batch.params])

    def asked(self, params: AvoidParams) -> Asked:
        phrases = tuple(map(tuple, split_phrases(params.words, self.split)))

        def language(alphabet: Alphabet) -> Automaton:
            return avoiding(alphabet, [[alphabet.ids[word] for word in phrase] for phrase in phrases])

        return Asked(self.name, phrases, tuple(word for phrase in phrases for word in phrase), language)

    def _demand(self, params: AvoidParams, batch: BatchContext[AvoidParams]) -> Demand:
        vocabulary = batch.vocabulary
        encoded = [vocabulary.encode(phrase)[1:-1] for phrase in split_phrases(params.words, self.split)]
        # A word outside the vocabulary cannot occur, nor can a phrase with one.
        ids = [phrase for phrase in encoded if vocabulary.unk_id not in phrase]
        return Demand(self.name, avoiding(alphabet_of(vocabulary), ids) if ids else None)

    def check(self, params: AvoidParams, words: Sequence[str]) -> Check:
        """Passed if none of the phrases occurs; the score is the share of those that do not."""
        split = split_phrases(params.words, self.split)
        places = [occurrences(words, phrase) for phrase in split]
        found = [text for text, at in zip(params.words, places, strict=True) if at]
        spans = [(start, len(phrase)) for at, phrase in zip(places, split, strict=True) for start in at]
        where = {place for start, size in spans for place in range(start, start + size)}
        why = f"with {', '.join(map(repr, found))}" if found else "none there"
        marks = tuple(Mark(start, start + size - 1, met=False) for start, size in spans)
        return Check(1 - len(found) / len(params.words), not found, why, tuple(sorted(where)), marks)

    @classmethod
    def from_target(cls, record: Any) -> AvoidParams:
        """The parameters that a line of a file of targets holds."""
        return AvoidParams.model_validate(record)
