"""The spaces between the words of a recipe, which texts over tokens are to have as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import TypeAlias

from dlmctl.text.spelling import detokenize, split_words, words_and_spaces
from dlmctl.text.tokens import plain_words

# Whether a space is between two words, the second of which follows the first.
Spaces: TypeAlias = Mapping[tuple[str, str], bool]


def spaces_between(texts: Iterable[str], respelled: Callable[[str], str]) -> Spaces:
    """Whether a space is between each two words that are next to each other in texts of a recipe.

    Left out are words between which there is always a space, or never; those that have one here and none there; and
    those with one that natural spelling does not have: recipes may be written with spaces around marks (``the dog .``).

    Args:
        respelled: a text as the tokens spell it.

    >>> dict(spaces_between(["an ice-cream (cold) ."], str))
    {('ice', '-'): False, ('-', 'cream'): False, ('cream', '('): True, ('(', 'cold'): False, ('cold', ')'): False}
    """
    found: dict[tuple[str, str], set[bool]] = {}
    for text in texts:
        words, spaced = words_and_spaces(respelled(text))
        natural_words, natural = words_and_spaces(respelled(detokenize(split_words(text))))
        if words != natural_words:
            continue
        for pair, as_written, as_usual in zip(pairwise(words), spaced, natural, strict=True):
            if as_written == as_usual and plain_words("".join(pair)) == list(pair):
                found.setdefault(pair, set()).add(as_written)
    return {pair: has_space for pair, kinds in found.items() if len(kinds) == 1 for has_space in kinds}
