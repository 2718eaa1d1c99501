"""Raw text to words, and words to natural spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_CLITICS = ("s", "t", "re", "ll", "m", "ve", "d")


_CLITIC = rf"'(?:{'|'.join(_CLITICS)})\b"


_WORD = re.compile(
    "|".join(
        [
            r"\d+(?:[.,:/]\d+)+",  # 10.50, 1,000, 7:30
            _CLITIC,
            r"(?:[a-z]\.){2,}",  # p.m.
            rf"\w+(?:(?!{_CLITIC})'\w+)*",  # o'clock in one, isn't as isn 't
            r"\.{2,}|-{2,}",
            r"[^\w\s]",
        ]
    ),
    re.IGNORECASE,
)


# Before these a hyphen is a dash, unless another hyphen follows: "the river - a gem", but "up-and-coming".
_AFTER_DASH = r"(?:the|a|an|i|he|she|it|we|they|this|you|his|her|and|but|with|which)\b(?! -)"


_RULES = [
    (re.compile(r"\s+([.,;:!?%)\]…])"), r"\1"),
    (re.compile(r"([(\[£$€#])\s+"), r"\1"),
    (re.compile(rf"(?<=\w) - (?=[\w£$€])(?!{_AFTER_DASH})", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\w)- (?=[£$€\d])|(?<=\d) -(?=\d)"), "-"),
    (re.compile(r"(?<=\w) / (?=\w)"), "/"),
    (re.compile(r"(?<=\w)\s+(['\u2019])\s*(s|t|re|ll|m|ve|d)\b"), r"\1\2"),
    (re.compile(r"(?<=\w) n't\b"), "n't"),
    (re.compile("\\s*\0\\s*"), ""),
]


def split_words(text: str) -> list[str]:
    """Raw text to words as the E2E corpus has them: punctuation and hyphens stand alone, ``isn't`` is ``isn 't``.

    Composed and decomposed accents become one, and so do straight and typographic apostrophes.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).replace("\u2019", "'"))


def detokenize(words: Sequence[str]) -> str:
    """Join words into natural text: no space before commas, inside hyphens and quotes, after a currency sign."""
    text = " ".join(_with_quotes_glued(words))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _with_quotes_glued(words: Sequence[str]) -> list[str]:
    """Quotation marks with a NUL on the side where no space belongs: a lone mark does not say which side that is."""
    glued, inside = list(words), {'"': False, "'": False}
    for at, word in enumerate(words):
        if word not in inside:
            continue
        opens = not inside[word]
        if word == "'":
            # "the kids ' menu" has an apostrophe; a quotation has its closing mark further on.
            after_s = at > 0 and words[at - 1].endswith(("s", "S"))
            opens = opens and not after_s and any(later.endswith("'") for later in words[at + 1 :])
        glued[at] = f"{word}\0" if opens else f"\0{word}"
        if word == "'" and not opens and not inside[word] and words[at + 1 : at + 2] and words[at + 1] in _CLITICS:
            glued[at] += "\0"
        inside[word] = opens
    return glued
