"""Words and phrases that a text must have, anywhere in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared
from dlmctl.control.automata import Asked, Demand, HeldTokens, HeldWords
from dlmctl.text.tokenizer import HuggingFaceTokenizer
from dlmctl.text.vocabulary import known_ids

from .phrases import ANY_NUMBER, Phrases, WordControl, occurrences, split_phrases


class ContainsParams(ControlParams):
    """What a recipe says of required words."""

    words: Phrases = Field(
        max_length=100,
        description="words or phrases, each at least once, in any order; matched as whole words, upper and lower case "
        "as written",
        examples=[["friendly", "cheap"]],
    )


class Contains(WordControl[ContainsParams]):
    """Holds every text to the phrases, exactly, whatever else is asked for; see ``dlmctl.control.automata``."""

    name = "contains"
    Params = ContainsParams

    def __init__(self, *phrases: str, **params: Any) -> None:
        super().__init__(**({"words": list(phrases)} if phrases else {}), **params)

    def phrases(self, params: ContainsParams) -> list[list[str]]:
        """Words of each phrase, longest first; a phrase that another one holds is met by that one."""
        phrases = sorted(split_phrases(list(dict.fromkeys(params.words)), self.split), key=len, reverse=True)
        return [p for at, p in enumerate(phrases) if not any(occurrences(other, p) for other in phrases[:at])]

    def word_range(self, params: ContainsParams) -> tuple[int, int]:
        return sum(map(len, self.phrases(params))), ANY_NUMBER

    def prepare(self, batch: BatchContext[ContainsParams]) -> Prepared:
        if isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return HeldTokens(batch, [[self.asked(params)] for params in batch.params])
        rows = []
        for params in batch.params:
            ids = tuple(tuple(known_ids(phrase, batch.vocabulary, self.name)) for phrase in self.phrases(params))
            rows.append([Demand(self.name, phrases=ids)])
        return HeldWords(batch, rows)

    def asked(self, params: ContainsParams) -> Asked:
        phrases = tuple(map(tuple, self.phrases(params)))
        return Asked(self.name, phrases, tuple(word for phrase in phrases for word in phrase), phrases=phrases)

    def check(self, params: ContainsParams, words: Sequence[str]) -> Check:
        """The share of the phrases that occur."""
        phrases = self.phrases(params)
        missing = [" ".join(phrase) for phrase in phrases if not occurrences(words, phrase)]
        why = f"without {', '.join(map(repr, missing))}" if missing else "all there"
        marks = [Mark(at, at + len(phrase) - 1) for phrase in phrases for at in occurrences(words, phrase)]
        marks += [Mark(None, None, met=False, wanted=phrase) for phrase in missing]
        return Check(1 - len(missing) / len(phrases), not missing, why, marks=tuple(marks))

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[ContainsParams]:
        """The two longest words of each sentence."""
        return [ContainsParams(words=sorted(dict.fromkeys(words), key=len, reverse=True)[:2]) for words in sentences]
