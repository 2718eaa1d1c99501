"""Split raw text into words like the Penn Treebank and GUM: ``don't`` becomes ``do n't``, ``cannot`` stays whole."""

from __future__ import annotations

import re
import unicodedata

_ENDINGS = "s|re|ve|ll|d|m"
_WORD = re.compile(
    "|".join(
        [
            r"\d+(?:[.,:/]\d+)+",  # 10.50, 1,000, 7:30
            r"(?:[A-Za-z]\.){2,}",  # p.m.
            r"(?:Mr|Mrs|Ms|Dr|St|Mt|Prof|Jr|Sr|vs|etc|No)\.(?=\s+\S)",  # with its full stop, except at the end
            rf"'(?i:{_ENDINGS}|t)\b",
            rf"\w+(?='(?i:{_ENDINGS})\b)",
            r"\w+?(?=n't\b)|(?i:n't)\b",
            r"\w+(?:'\w+)*",  # o'clock
            r"\.{2,}|-{2,}|[^\w\s]",
        ]
    )
)
# Two words written as one.
_CONTRACTED = frozenset(["gonna", "wanna", "gotta", "lemme", "gimme"])
_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})  # noqa: RUF001 (the marks to be replaced)


def split_penn(text: str) -> list[str]:
    """Split raw text into words like the Penn Treebank; composed and decomposed accents become the same.

    >>> split_penn("I don't know what you're gonna do.")
    ['I', 'do', "n't", 'know', 'what', 'you', "'re", 'gon', 'na', 'do', '.']
    """
    words: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFC", text).translate(_STRAIGHT)):
        words += [word[:3], word[3:]] if word.lower() in _CONTRACTED else [word]
    return words
