"""How many characters a text has as written, with its spaces: a subtitle, a button, a headline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from dlmctl import Check
from dlmctl.control.automata import Alphabet
from dlmctl.control.automata.totals import Quantity, quantity
from dlmctl.text import written_length
from dlmctl.text.spelling import detokenize

from .word_totals import TotalControl, TotalParams


@lru_cache(maxsize=2)
def _quantity(alphabet: Alphabet) -> Quantity:
    """The characters that the words of an alphabet add to a text."""
    return quantity(alphabet, len(written_length.CONTEXTS), written_length.step, written_length.kind)


class Characters(TotalControl):
    """Fixes the number of characters, exactly, as the text is written; single quotation marks do not occur."""

    name = "characters"
    unit = "characters"
    quantity = staticmethod(_quantity)

    def check(self, params: TotalParams, words: Sequence[str]) -> Check:
        """Counts the characters of the words as they are written with the usual spaces."""
        return self.verdict(params, len(detokenize(words)))

    def check_written(
        self, params: Sequence[TotalParams], texts: Sequence[Sequence[str]], written: Sequence[str]
    ) -> list[Check]:
        """Counts the characters of the texts as written."""
        return [self.verdict(target, len(text)) for target, text in zip(params, written, strict=True)]

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[TotalParams]:
        """The number of characters of each sentence as written."""
        return [TotalParams(number=max(1, len(detokenize(words)))) for words in sentences]
