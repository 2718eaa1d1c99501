"""The automata of exact controls over the tokens of a tokenizer: states, classes and seconds, for docs/tokens.md.

python benchmarks/tokens.py TOKENIZER WORDS

TOKENIZER is a folder or hub name of a Hugging Face tokenizer, WORDS a file with a word on each line, the most frequent
first. The first request of a kind also reads what the tokens are; each further one is built anew.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from controls import Characters, Syllables
from controls.edit import EditParams, requirement_of
from controls.lexicon_of_tokens import lexicon_of_tokens
from controls.word_bounds import Bound, WordFilter
from controls.word_totals import TotalControl, TotalParams
from dlmctl.control.automata import Requirement, required_length
from dlmctl.control.automata.exact_tokens import token_language
from dlmctl.errors import RecipeError
from dlmctl.text.spelling import split_words
from dlmctl.text.tokenizer import HuggingFaceTokenizer

SENTENCE = (
    "The old man who lived near the river bought a small red house for his two young dogs , and then he went home "
    "again to sleep ."
)


def total(kind: type[TotalControl], number: int, tolerance: int = 0) -> Requirement:
    """The requirement of so many characters or syllables."""
    return kind(number=number, tolerance=tolerance).requirement(TotalParams(number=number, tolerance=tolerance))


def contains(*words: str) -> Requirement:
    """The requirement of words in any order."""
    return Requirement("contains", words, words, phrases=tuple((word,) for word in words))


def edit(words: int, changes: int, tolerance: int, *, held: bool) -> Requirement:
    """The requirement of an edit of the first words of ``SENTENCE``, every other one held if asked for."""
    text = tuple(split_words(SENTENCE)[:words])
    params = EditParams(text=" ".join(text), changes=changes, tolerance=tolerance)
    return requirement_of(text, params, frozenset(range(0, words, 2)) if held else frozenset())


def lexicon(tokenizer: HuggingFaceTokenizer, words: list[str] | None = None, **bounds: Bound) -> Requirement:
    """The requirement of the words of a list, or within bounds; function words pass."""
    listed = None if words is None else {word.casefold(): word for word in words}
    return lexicon_of_tokens(WordFilter(listed, "the list", None, bounds, None), True, 0, tokenizer)


def requests(tokenizer: HuggingFaceTokenizer, words: list[str]) -> Iterator[tuple[str, list[Requirement]]]:
    """What is asked for, by name."""
    yield "characters, 34", [total(Characters, 34)]
    yield "characters, 280 ± 10", [total(Characters, 280, 10)]
    yield "characters, 60 ± 5, and contains, one word", [total(Characters, 60, 5), contains("bridge")]
    yield "characters, 34, and length, 7 words", [total(Characters, 34), required_length(7, 7)]
    yield "syllables, 7", [total(Syllables, 7)]
    yield "syllables, 17, and contains, one word", [total(Syllables, 17), contains("bridge")]
    yield "syllables, 10, and characters, 40 ± 5", [total(Syllables, 10), total(Characters, 40, 5)]
    yield "lexicon, 3 to 5 letters", [lexicon(tokenizer, letters=(3.0, 5.0))]
    for count in (1000, 3000):
        listed = lexicon(tokenizer, words[:count])
        yield f"lexicon, {count:,} words", [listed]
        yield f"lexicon, {count:,} words, and contains, one word", [listed, contains("table")]
        yield f"lexicon, {count:,} words, and length, 10 words", [listed, required_length(10, 10)]
    for size, changes, tolerance in (
        (10, 3, 0),
        (15, 3, 0),
        (25, 3, 0),
        (25, 6, 0),
        (10, 2, 1),
        (10, 3, 1),
        (25, 2, 1),
    ):
        for held in (True, False):
            name = f"edit, {size} words, {changes} changes, tolerance {tolerance}" + (", half held" if held else "")
            yield name, [edit(size, changes, tolerance, held=held)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer")
    parser.add_argument("words", type=Path)
    options = parser.parse_args()
    tokenizer = HuggingFaceTokenizer(options.tokenizer)
    words = options.words.read_text(encoding="utf-8").split()
    print(f"{len(tokenizer.strings):,} tokens")
    for name, required in requests(tokenizer, words):
        start = time.perf_counter()
        try:
            states, classes = token_language(tokenizer, required).table.shape
            size = f"{states:,} | {classes:,}"
        except RecipeError as error:
            size = str(error)
        print(f"| {name} | {size} | {time.perf_counter() - start:.1f} |", flush=True)


if __name__ == "__main__":
    main()
