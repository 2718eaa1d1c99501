"""How many characters a text has as written, with its spaces: a subtitle, a button, a headline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from dlmctl import Check
from dlmctl.control.automata import Alphabet, Automaton
from dlmctl.control.automata.totals import Quantity, quantity, with_total
from dlmctl.text import written_length
from dlmctl.text.spelling import detokenize
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .word_totals import TotalControl, TotalParams


@lru_cache(maxsize=2)
def _quantity(alphabet: Alphabet) -> Quantity:
    """The characters that the words of an alphabet add to a text."""
    return quantity(alphabet, len(written_length.CONTEXTS), written_length.step, written_length.kind)


@lru_cache(maxsize=2)
def _quantity_of_tokens(tokenizer: HuggingFaceTokenizer) -> Quantity:
    """The characters that tokens add to a text; the context is whether it has begun, before which a space is not
    written."""

    def step(context: int, string: str) -> tuple[int, int]:
        return 1, len(string.removeprefix(" ") if context == 0 else string)

    alphabet = Alphabet([_within_line(string) for string in tokenizer.strings])
    return quantity(alphabet, 2, step, kind=lambda string: (len(string), string.startswith(" ")))


def _within_line(token: bytes | None) -> str | None:
    """The string of a token that a line of text may have; None for parts of characters, and for spaces that would only
    fill up a text."""
    try:
        string = (token or b"").decode()
    except UnicodeDecodeError:
        return None
    is_usual = string.isprintable() and string[-1:].strip() and "  " not in string
    return string if is_usual else None


class Characters(TotalControl):
    """Fixes the number of characters, exactly, as the text is written.

    On models of whole words single quotation marks do not occur.
    """

    name = "characters"
    unit = "characters"
    quantity = staticmethod(_quantity)

    @staticmethod
    def over_tokens(tokenizer: HuggingFaceTokenizer, bounds: tuple[int, int]) -> Automaton:
        return with_total(_quantity_of_tokens(tokenizer), *bounds)

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
