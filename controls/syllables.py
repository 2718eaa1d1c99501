"""How many syllables a text has: a line of a poem or a song, or a sentence to be read aloud."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

from dlmctl import Check, Mark
from dlmctl.control.automata import Alphabet, Automaton, intersection
from dlmctl.control.automata.dfa import reduced
from dlmctl.control.automata.lifted import MAX_SPARSE_CELLS, MAX_SPARSE_STATES
from dlmctl.control.automata.listed_words import MARKS, Entry, clitic_tokens, listed_words, one_token_words
from dlmctl.control.automata.totals import Quantity, quantity, with_total
from dlmctl.text.syllables import CLITICS, syllables, syllables_of_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .word_totals import TotalControl, TotalParams


@lru_cache(maxsize=2)
def _quantity(alphabet: Alphabet) -> Quantity:
    """The syllables of the words of an alphabet; the context is what each clitic would add after the word."""
    words = [word for word in alphabet.words if word is not None]
    after = {word: tuple(syllables(clitic, word) for clitic in CLITICS) for word in ["", *words]}
    contexts = {context: number for number, context in enumerate(dict.fromkeys(after.values()))}
    added = list(contexts)

    def step(context: int, word: str) -> tuple[int, int] | None:
        clitic = word.casefold()
        count = added[context][CLITICS.index(clitic)] if clitic in CLITICS else syllables(word)
        return None if count is None else (contexts[after[word]], count)

    def kind(word: str) -> Hashable:
        return word.casefold() if word.casefold() in CLITICS else syllables(word), after[word]

    return quantity(alphabet, len(contexts), step, kind)


@lru_cache(maxsize=2)
def _words_of_one_token(tokenizer: HuggingFaceTokenizer) -> tuple[Alphabet, Automaton]:
    """The word of each token of a line whose words have one token each, with a mark in place of all other tokens; and
    the texts that are such lines."""
    words = {token: word for token, word in one_token_words(tokenizer).items() if syllables(word) is not None}
    clitics = {tokens[0]: clitic for clitic in CLITICS if len(tokens := clitic_tokens(tokenizer, clitic)) == 1}
    entries = [Entry(clitic, "attached") for clitic in clitics.values()]
    entries += [mark for mark in MARKS if mark.role != "break"]
    named = words | clitics
    alphabet = Alphabet([None if string is None else named.get(at, ".") for at, string in enumerate(tokenizer.strings)])
    return alphabet, listed_words(tokenizer, entries, tokens=words)


class Syllables(TotalControl):
    """Fixes the number of syllables, exactly; words whose syllables are unknown, such as numbers, do not occur.

    On models whose tokens are parts of words, neither do words of several tokens.
    """

    name = "syllables"
    unit = "syllables"
    quantity = staticmethod(_quantity)
    leaves_out = "words of several tokens"

    @staticmethod
    def over_tokens(tokenizer: HuggingFaceTokenizer, bounds: tuple[int, int]) -> Automaton:
        alphabet, lines = _words_of_one_token(tokenizer)
        total = with_total(_quantity(alphabet), *bounds)
        return reduced(intersection(lines, total, MAX_SPARSE_STATES, MAX_SPARSE_CELLS))

    def check(self, params: TotalParams, words: Sequence[str]) -> Check:
        """Adds up the syllables of the words, by the CMU Pronouncing Dictionary and a rule for other words."""
        counts = syllables_of_words(words)
        unknown = [at for at, count in enumerate(counts) if count is None]
        marks = [
            Mark(at, at, "?" if count is None else str(count), count is not None)
            for at, count in enumerate(counts)
            if count != 0
        ]
        if unknown:
            named = ", ".join(repr(words[at]) for at in unknown[:3])
            return Check(0.0, False, f"the syllables of {named} are unknown", tuple(unknown), tuple(marks))
        return self.verdict(params, sum(count for count in counts if count is not None), marks)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[TotalParams]:
        """The number of syllables of each sentence, without words whose syllables are unknown."""
        return [TotalParams(number=max(1, sum(filter(None, syllables_of_words(words))))) for words in sentences]
