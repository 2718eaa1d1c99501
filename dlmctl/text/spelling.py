"""Split raw text into words, and join words in natural spelling.

Words are joined by conventions of spelling: no space before a comma, inside a hyphenated word, around a slash. Where a
text departs from them, its punctuation has the spacing marks of OpenNMT's tokeniser: ``￭`` on a side without a space
where the conventions have one (``London ￭–￭ Paris``), ``▁`` on a side with a space where they have none
(``great ▁-▁ really``).
"""

# Characters of many scripts are here on purpose.
# ruff: noqa: RUF001

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby, pairwise

JOINED, SPACED = "￭", "▁"
_SPACING_MARKS = JOINED + SPACED

_CLITICS = ("s", "t", "re", "ll", "m", "ve", "d")
_CLITIC = rf"'(?:{'|'.join(_CLITICS)})\b"


# Ranges of code points with Unicode's combining marks.
_BLOCKS = [(0x300, 0x3100), (0xA600, 0xAC00), (0xFB00, 0xFE30), (0x10000, 0x12000), (0x16A00, 0x17000)]
_BLOCKS += [(0x1BC00, 0x1BD00), (0x1CF00, 0x1E950), (0xE0100, 0xE01F0)]


@cache
def _word_pattern() -> re.Pattern[str]:
    """The pattern of a word."""
    codes = (code for start, end in _BLOCKS for code in range(start, end))
    marks = (code for code in codes if unicodedata.category(chr(code))[0] == "M")
    runs = (list(run) for _, run in groupby(enumerate(marks), lambda pair: pair[1] - pair[0]))
    mark = "".join(f"{chr(run[0][1])}-{chr(run[-1][1])}" for run in runs)
    # Letters, digits and their marks; a zero-width joiner or non-joiner between them is part of the spelling.
    letters = rf"[\w{mark}]+(?:[\u200c\u200d]+[\w{mark}]+)*"
    symbol = rf"[^\w\s\u200c\u200d][{mark}\U0001f3fb-\U0001f3ff]*"  # with accents or a skin tone
    return re.compile(
        "|".join(
            [
                r"(?:https?://|www\.)[^\s<>\"“”]*[\w/]",
                r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
                r"\d+(?:[.,:/]\d+)+",  # 10.50, 1,000, 7:30
                _CLITIC,
                r"(?:[a-z]\.){2,}",  # p.m.
                # o'clock as one word, isn't as isn 't; the middle dot and the Hebrew marks also join letters
                rf"{letters}(?:(?!{_CLITIC})['·״׳]{letters})*",
                r"\.{2,}|-{2,}",
                "[\U0001f1e6-\U0001f1ff]{2}",  # a flag
                rf"{symbol}(?:\u200d{symbol})*",  # a sequence of joined emoji
            ]
        ),
        re.IGNORECASE,
    )


# Before these a hyphen is a dash, unless another hyphen follows: "the river - a gem", but "up-and-coming".
AFTER_DASH = frozenset("the a an i he she it we they this you his her and but with which".split())
_DASH_BEFORE = rf"(?:{'|'.join(sorted(AFTER_DASH))})\b(?! -)"
# Two words written as one, which the Penn Treebank splits: the first word by the second.
WRITTEN_AS_ONE = {"na": ("gon", "wan"), "ta": ("got",), "me": ("gim", "lem")}
_WRITTEN_AS_ONE = "|".join(rf"(?:{'|'.join(firsts)})(?= {second}\b)" for second, firsts in WRITTEN_AS_ONE.items())

_RULES = [
    (re.compile(r"\s+([.,;:!?%)\]…”’।॥،؟۔])"), r"\1"),
    (re.compile(r"([(\[£$€#“‘¿¡])\s+"), r"\1"),
    (re.compile(r"\s*([，。！？；：、「」『』（）])\s*"), r"\1"),
    (re.compile(rf"(?<=\w) - (?=[\w£$€])(?!{_DASH_BEFORE})", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\w)- (?=[£$€\d])|(?<=\d) -(?=\d)"), "-"),
    (re.compile(r"(?<=\d) – (?=[£$€\d])"), "–"),
    (re.compile(r"(?<=\w) / (?=\w)"), "/"),
    (re.compile(r"(?<=\w)\s+(['\u2019])\s*(s|t|re|ll|m|ve|d)\b"), r"\1\2"),
    (re.compile(r"(?<=\w) n't\b"), "n't"),
    (re.compile(rf"\b({_WRITTEN_AS_ONE}) ", re.IGNORECASE), r"\1"),
    (re.compile(f"\\s*[\0{JOINED}]\\s*"), ""),
    (re.compile(SPACED), ""),
]
# Before these an apostrophe replaces letters or digits: 'tis, get 'em, the '90s.
_SHORTENED = re.compile(r"tis|twas|em|cause|til|\d0s", re.IGNORECASE)
# Words that end in s and, unlike plurals and names, have no apostrophe after them: what follows is a quotation mark.
_NOT_POSSESSIVE = frozenset(
    "'s is was this his hers ours yours theirs has does as us its yes thus always perhaps unless less plus across"
    " besides sometimes says means reads wants gets comes goes".split()
)
# Symbols that writers set with or without spaces; spaces around others often come from a tokeniser.
_OPTIONAL_SPACES = frozenset("-–—/&+=*~")
_MARKING_ROUNDS = 3


def split_words(text: str) -> list[str]:
    """Split raw text into words like the E2E corpus: punctuation and hyphens are words, ``isn't`` becomes ``isn 't``.

    A letter keeps its combining marks. Composed and decomposed accents become the same, and so do straight and
    typographic apostrophes. ``detokenize`` restores the text in this spelling, except for spaces before full stops and
    the like.

    >>> split_words("London–Paris, isn't it?")
    ['London', '￭–￭', 'Paris', ',', 'isn', "'t", 'it', '?']
    """
    words, has_space = words_and_spaces(text)
    for _ in range(_MARKING_ROUNDS):  # a mark may change the spacing next to it
        wrong = [at for at, spaced in enumerate(_spaces(words)) if spaced != has_space[at]]
        marked = [_mark(words, at, has_space[at]) for at in wrong]
        if not any(marked):
            break
    return words


def words_and_spaces(text: str) -> tuple[list[str], list[bool]]:
    """The words of ``split_words`` without spacing marks, and whether there is a space after each but the last.

    >>> words_and_spaces("an (old) cat")
    (['an', '(', 'old', ')', 'cat'], [True, False, False, True])
    """
    text = unicodedata.normalize("NFC", text)
    # If ‘ is in the text, ’ may be a quotation mark.
    text = re.sub(r"(?<=\w)’(?=\w)", "'", text) if "‘" in text else text.replace("’", "'")
    text = text.translate(dict.fromkeys(map(ord, _SPACING_MARKS + "\0"), " "))
    spans = [match.span() for match in _word_pattern().finditer(text)]
    return [text[start:end] for start, end in spans], [left[1] < right[0] for left, right in pairwise(spans)]


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


def split_piece(text: str, whole: str, end: int, split: Callable[[str], list[str]]) -> list[str]:
    """The words of a piece of a template or pattern ``whole``, in which it ends at ``end``."""
    return split(text) if end == len(whole.rstrip()) else split_inside(text, split)


def plain(word: str) -> str:
    """A word without its spacing marks."""
    return word.strip(_SPACING_MARKS) if len(word) > 1 else word


def folded(word: str) -> str:
    """A word regardless of case, of typographic apostrophes, and of how its accents are encoded.

    >>> folded("O’Clock")
    "o'clock"
    """
    return with_plain_marks(word).casefold()


def with_plain_marks(word: str) -> str:
    """A word with plain apostrophes for typographic ones, and composed accents."""
    return unicodedata.normalize("NFC", word).replace("’", "'")


def letters(word: str) -> float:
    """The number of letters in a word, without hyphens, apostrophes and digits."""
    return float(sum(char.isalpha() for char in word))


def spans_in_text(words: Sequence[str], text: str) -> list[tuple[int, int] | None]:
    """The characters of a text at which each word begins, and ends before: its first occurrence after the words before
    it, without spacing marks; None for a word that does not occur there.

    >>> spans_in_text(["is", "n't", "here", "is"], "isn't is")
    [(0, 2), (2, 5), None, (6, 8)]
    """
    spans: list[tuple[int, int] | None] = []
    at = 0
    for word in map(plain, words):
        start = text.find(word, at)
        at = at if start < 0 else start + len(word)
        spans.append(None if start < 0 else (start, at))
    return spans


def _spaces(words: Sequence[str]) -> list[bool]:
    """Whether ``detokenize`` sets a space after each word except the last."""
    spans = [span for span in spans_in_text(words, detokenize(words)) if span is not None]  # it leaves out no word
    return [left[1] < right[0] for left, right in pairwise(spans)]


def _mark(words: list[str], at: int, has_space: bool) -> bool:
    """Mark the punctuation on one side of the gap after word ``at``; returns whether there was any to mark."""
    left, right = words[at], words[at + 1]
    if not has_space:
        if not plain(left)[-1].isalnum() and plain(right)[0].isalnum():
            words[at] = left + JOINED
        else:
            words[at + 1] = JOINED + right
        return True
    if plain(right) in _OPTIONAL_SPACES and not right.startswith(SPACED):
        words[at + 1] = SPACED + right
    elif (plain(left) in _OPTIONAL_SPACES or left.startswith(JOINED)) and not left.endswith(SPACED):
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
    """The words with a NUL at each quotation mark on the side without a space, which the mark alone does not tell."""
    glued, inside = list(words), {'"': False, "'": False}
    for at, word in enumerate(words):
        if word not in inside:
            continue
        if word == "'" and words[at + 1 : at + 2] and _SHORTENED.fullmatch(words[at + 1]):
            glued[at] = "'\0"
            continue
        opens = not inside[word]
        if word == "'":
            # "the kids ' menu" has an apostrophe; a quotation has a closing mark further on.
            before = words[at - 1].lower() if at else ""
            after_s = before.endswith("s") and before not in _NOT_POSSESSIVE
            opens = opens and not after_s and any(later.endswith("'") for later in words[at + 1 :])
        glued[at] = f"{word}\0" if opens else f"\0{word}"
        if word == "'" and not opens and not inside[word] and words[at + 1 : at + 2] and words[at + 1] in _CLITICS:
            glued[at] += "\0"
        inside[word] = opens
    return glued
