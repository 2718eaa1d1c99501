"""The number of syllables in English words.

Counted by a rule of spelling, and for the words of the CMU Pronouncing Dictionary that do not follow it, by a list
(``syllables.json``, written by ``benchmarks/syllables.py``), so that every word of the dictionary has the number of its
first pronunciation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from dlmctl.text.spelling import plain

EXCEPTIONS = "syllables.json"

_VOWELS = re.compile("[aeiouy]+")
# The e of "made", "makes", "moved" and "lately" is silent, but not that of "table", "roses", "added" and "tables".
_SILENT = re.compile(
    r"(?<![aeiouy])(?:(?<!l)|(?<=[aeiouyl]l))e$"
    r"|(?<![aeiouyszxgc])(?<!sh)(?<!ch)(?:(?<!l)|(?<=[aeiouyl]l))es$"
    r"|(?<![aeiouydt])(?:(?<!l)|(?<=[aeiouyl]l))ed$"
    r"|(?:(?<=[^aeiouyl])|(?<=[aeiouyl]l))e(?:ly|ments?|ness|less|ful|fully|some)$"
)
# Two syllables in a row of vowels: "dual", "fluent", "via", "radio", "easier", "quiet", "video", "player", "trying".
_HIATUS = re.compile(
    r"(?<![qg])u(?:a|e[^aeious]|o[^u])|(?<![ctsg])i(?:a|u)|(?<![ctsgln])io|ie(?:r|st|nt|nce|t)(?=s?$)|(?<![gp])eo"
    r"|[aeiou]y[aeiou]|[yeou]ing|aeo|(?<![ctsxg])iou|(?<=[ctsgx]i)a(?=te|ting|tion)|ei(?=ty)|uity"
    r"|ea(?=te|tion|tor|ting|tive)|ii"
)
# The m of "prism" and "rhythm" is a syllable.
_SYLLABIC = re.compile(r"(?:s|th)ms?$")

# Second parts of contractions, which depend on the word before.
CLITICS = ("n't", "'t", "'s", "'m", "'d", "'ll", "'re", "'ve")
# Don't, can't, won't, weren't: one syllable with "n't"; so are I'll, you've, she'd.
_ONE_WITH_NOT = frozenset("do ca wo sha ai are were don can won shan ain aren weren".split())
_ONE_WITH_PRONOUN = frozenset("i you he she we they who".split())
_SIBILANT = re.compile(r"(?:s|x|z|ch|sh|[cgsz]e)$")


def syllables(word: str, before: str = "") -> int | None:
    """The number of syllables that a word adds to a text; None if that is unknown, as for "2014" and "%".

    Args:
        word: a word as tokenisers split it; punctuation marks have no syllable.
        before: the word before it, on which the pieces of contractions depend: "did n't" has two, "do n't" one.

    >>> syllables("little"), syllables("n't", "did"), syllables("n't", "do"), syllables("2014")
    (2, 1, 0, None)
    """
    written = plain(word).casefold()
    if written in CLITICS:
        return _of_clitic(written, before.casefold())
    parts = [part for part in re.split(r"['’\-.]", written) if part]  # noqa: RUF001
    if not parts and written:
        return 0
    if all(part.isalpha() for part in parts):
        whole = _exceptions().get("".join(parts) if "." in written else written)
        return whole if whole is not None else sum(_of_part(part) for part in parts)
    return None if any(char.isalnum() or char in "$£€%&+=#@" for char in written) else 0


def syllables_of_words(words: Sequence[str]) -> list[int | None]:
    """The ``syllables`` that each word of a text adds to it.

    >>> syllables_of_words(["I", "do", "n't", "sing", "."])
    [1, 1, 0, 1, 0]
    """
    return [syllables(word, before) for before, word in zip(["", *words], words, strict=False)]


def by_rule(word: str) -> int:
    """The number of syllables in a word of lower-case letters by its spelling, at least one."""
    count = len(_VOWELS.findall(word)) - len(_SILENT.findall(word))
    return max(1, count + len(_HIATUS.findall(word)) + len(_SYLLABIC.findall(word)))


def _of_part(part: str) -> int:
    return _exceptions().get(part, by_rule(part))


def _of_clitic(clitic: str, before: str) -> int:
    """The syllables of the second part of a contraction: "it 'll" has one more than "it", "I 'll" none."""
    if clitic in ("n't", "'t"):
        return int(before not in _ONE_WITH_NOT)
    if clitic == "'m":
        return 0
    if clitic == "'s":
        return int(_SIBILANT.search(before) is not None)
    if clitic == "'d":
        return int(before.endswith(("t", "d")))
    return int(before not in _ONE_WITH_PRONOUN)


@cache
def _exceptions() -> Mapping[str, int]:
    """The words that do not follow the rule."""
    listed = json.loads(files(__package__).joinpath(EXCEPTIONS).read_text("utf-8"))["words"]
    return {word: int(count) for count, words in listed.items() for word in words.split()}
