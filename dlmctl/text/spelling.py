"""Raw text to words, and words to natural spelling.

Words are joined by conventions of spelling: no space before a comma, inside a hyphenated word, around a slash. Where a
text departs from them, its punctuation carries the marks of OpenNMT's tokenizer: ``￭`` on a side where no space
belongs although one would be set (``London ￭–￭ Paris``), ``▁`` on a side where one belongs (``great ▁-▁ really``).
"""

# Signs of many scripts stand here on purpose.
# ruff: noqa: RUF001

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby, pairwise

JOINED, SPACED = "￭", "▁"
_MARKS_OF_SPACING = JOINED + SPACED

_CLITICS = ("s", "t", "re", "ll", "m", "ve", "d")
_CLITIC = rf"'(?:{'|'.join(_CLITICS)})\b"


# Where Unicode has combining marks (blocks without any are left out).
_BLOCKS = [(0x300, 0x3100), (0xA600, 0xAC00), (0xFB00, 0xFE30), (0x10000, 0x12000), (0x16A00, 0x17000)]
_BLOCKS += [(0x1BC00, 0x1BD00), (0x1CF00, 0x1E950), (0xE0100, 0xE01F0)]


@cache
def _word() -> re.Pattern[str]:
    """What a word is."""
    codes = (code for start, end in _BLOCKS for code in range(start, end))
    marks = (code for code in codes if unicodedata.category(chr(code))[0] == "M")
    runs = (list(run) for _, run in groupby(enumerate(marks), lambda pair: pair[1] - pair[0]))
    mark = "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)
    # Letters, figures and their marks; a zero-width joiner or non-joiner between them is part of the spelling.
    letters = rf"[\w{mark}]+(?:[\u200c\u200d]+[\w{mark}]+)*"
    symbol = rf"[^\w\s\u200c\u200d][{mark}\U0001f3fb-\U0001f3ff]*"  # with accents or a colour of skin
    return re.compile(
        "|".join(
            [
                r"(?:https?://|www\.)[^\s<>\"“”]*[\w/]",
                r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
                r"\d+(?:[.,:/]\d+)+",  # 10.50, 1,000, 7:30
                _CLITIC,
                r"(?:[a-z]\.){2,}",  # p.m.
                # o'clock in one, isn't as isn 't; the middle dot and the Hebrew marks join letters, too
                rf"{letters}(?:(?!{_CLITIC})['·״׳]{letters})*",
                r"\.{2,}|-{2,}",
                "[\U0001f1e6-\U0001f1ff]{2}",  # a flag
                rf"{symbol}(?:\u200d{symbol})*",  # emoji joined into one
            ]
        ),
        re.IGNORECASE,
    )


# Before these a hyphen is a dash, unless another hyphen follows: "the river - a gem", but "up-and-coming".
_AFTER_DASH = r"(?:the|a|an|i|he|she|it|we|they|this|you|his|her|and|but|with|which)\b(?! -)"

_RULES = [
    (re.compile(r"\s+([.,;:!?%)\]…”’।॥،؟۔])"), r"\1"),
    (re.compile(r"([(\[£$€#“‘¿¡])\s+"), r"\1"),
    (re.compile(r"\s*([，。！？；：、「」『』（）])\s*"), r"\1"),
    (re.compile(rf"(?<=\w) - (?=[\w£$€])(?!{_AFTER_DASH})", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\w)- (?=[£$€\d])|(?<=\d) -(?=\d)"), "-"),
    (re.compile(r"(?<=\d) – (?=[£$€\d])"), "–"),
    (re.compile(r"(?<=\w) / (?=\w)"), "/"),
    (re.compile(r"(?<=\w)\s+(['\u2019])\s*(s|t|re|ll|m|ve|d)\b"), r"\1\2"),
    (re.compile(r"(?<=\w) n't\b"), "n't"),
    # Two words written as one, which the Penn Treebank splits.
    (re.compile(r"\b((?:gon|wan)(?= na\b)|got(?= ta\b)|(?:gim|lem)(?= me\b)) ", re.IGNORECASE), r"\1"),
    (re.compile(f"\\s*[\0{JOINED}]\\s*"), ""),
    (re.compile(SPACED), ""),
]
# Before these an apostrophe stands for letters or figures left out: 'tis, get 'em, the '90s.
_SHORTENED = re.compile(r"tis|twas|em|cause|til|\d0s", re.IGNORECASE)
# Signs that may stand with spaces or without; any other is as often set apart by a tokenizer as by a writer.
_EITHER_WAY = frozenset("-–—/&+=*~")
_ROUNDS = 3


def split_words(text: str) -> list[str]:
    """Raw text to words as the E2E corpus has them: punctuation and hyphens stand alone, ``isn't`` is ``isn 't``.

    A letter keeps its combining marks. Composed and decomposed accents become one, and so do straight and typographic
    apostrophes. ``detokenize`` gives the text back, so spelled, but for spaces before full stops and the like.

    >>> split_words("London–Paris, isn't it?")
    ['London', '￭–￭', 'Paris', ',', 'isn', "'t", 'it', '?']
    """
    text = unicodedata.normalize("NFC", text)
    # With ‘ in the text, ’ may be a quotation mark, too.
    text = re.sub(r"(?<=\w)’(?=\w)", "'", text) if "‘" in text else text.replace("’", "'")
    text = text.translate(dict.fromkeys(map(ord, _MARKS_OF_SPACING + "\0"), " "))
    places = [match.span() for match in _word().finditer(text)]
    words = [text[start:end] for start, end in places]
    apart = [before[1] < after[0] for before, after in pairwise(places)]
    for _ in range(_ROUNDS):  # a mark at one place may change what happens at the next
        wrong = [at for at, spaced in enumerate(_spaces(words)) if spaced != apart[at]]
        marked = [_mark(words, at, apart[at]) for at in wrong]
        if not any(marked):
            break
    return words


def split_inside(text: str, split: Callable[[str], list[str]]) -> list[str]:
    """The words of a text that other words follow: an abbreviation keeps its full stop, which at the end of a text is
    a word of its own.

    >>> from dlmctl.text.penn import split_penn
    >>> split_penn("Mr."), split_inside("Mr.", split_penn)
    (['Mr', '.'], ['Mr.'])
    """
    words = split(text)
    if len(words) < 2 or words[-1] != ".":
        return words
    abbreviated = [*words[:-2], f"{words[-2]}."]
    return abbreviated if split(f"{text} x") == [*abbreviated, "x"] else words


def plain(word: str) -> str:
    """A word without its marks of spacing."""
    return word.strip(_MARKS_OF_SPACING) if len(word) > 1 else word


def letters(word: str) -> float:
    """How many letters a word has; hyphens, apostrophes and figures are none."""
    return float(sum(char.isalpha() for char in word))


def _spaces(words: Sequence[str]) -> list[bool]:
    """Whether ``detokenize`` sets a space behind each word but the last."""
    text, at, found = detokenize(words), 0, list[bool]()
    for word in words:
        start = text.index(plain(word), at)
        found.append(start > at)
        at = start + len(plain(word))
    return found[1:]


def _mark(words: list[str], at: int, spaced: bool) -> bool:
    """Mark the sign on one side of the gap behind word ``at``; whether there was one to mark."""
    left, right = words[at], words[at + 1]
    if not spaced:
        if not plain(left)[-1].isalnum() and plain(right)[0].isalnum():
            words[at] = left + JOINED
        else:
            words[at + 1] = JOINED + right
        return True
    if plain(right) in _EITHER_WAY and not right.startswith(SPACED):
        words[at + 1] = SPACED + right
    elif (plain(left) in _EITHER_WAY or left.startswith(JOINED)) and not left.endswith(SPACED):
        words[at] = left + SPACED
    else:
        return False
    return True


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
        if word == "'" and words[at + 1 : at + 2] and _SHORTENED.fullmatch(words[at + 1]):
            glued[at] = "'\0"
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
