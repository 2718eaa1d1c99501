"""Kinds of characters that ``split_words`` distinguishes: the alphabet of the automaton that splits texts."""

# Characters of many scripts are here on purpose.
# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata
from functools import cache

from dlmctl.text.spelling import JOINED, SPACED

# One letter per kind, so that sets of kinds are strings. Letters of clitics ('s, 't, 're, 'll, 'm, 've, 'd) and the w
# of "www" are kinds of their own.
SPACE, FORBIDDEN, DIGIT, LETTER, WORD, FIRST_HALF = " ", "X", "0", "a", "Ω", "ω"
ZWJ, ZWNJ, APOSTROPHE, JOINER, FLAG, TONE, SYMBOL = "Z", "z", "'", "·", "F", "T", "#"
# Combining marks: without an order; by the order in which NFC puts them; and second halves of pairs that NFC composes,
# without an order and of the first order.
MARK, MARK_HALF, SECOND_HALF, SECOND_ORDERED, ORDERED = "M", "µ", "Y", "y", "1234567"
CLITIC_LETTERS = "strelmvd"
SIGNS = ".,:/-@+"

LETTERS = LETTER + CLITIC_LETTERS + "w"
MARKS = MARK + MARK_HALF + SECOND_HALF + SECOND_ORDERED + ORDERED
WORD_LIKE = DIGIT + LETTERS + WORD + FIRST_HALF
KINDS = SPACE + FORBIDDEN + WORD_LIKE + ZWJ + ZWNJ + APOSTROPHE + JOINER + FLAG + TONE + SYMBOL + MARKS + SIGNS

# The first canonical combining class of each level: NFC puts a mark after those of lower classes. Marks that scripts
# put after each other are on different levels.
_LEVELS = (7, 9, 21, 23, 33, 107, 122)
_NAMED = {"\u200d": ZWJ, "\u200c": ZWNJ, "·": JOINER, "״": JOINER, "׳": JOINER, **{sign: sign for sign in SIGNS}}
# Code points where Unicode has characters composed of two others, except Korean syllables.
_COMPOSED = (*range(0xC0, 0x3200), *range(0x11000, 0x12000), *range(0x16000, 0x17000))


@cache
def kind(character: str) -> str:
    """The kind of a character; FORBIDDEN for those that NFC would change, alone or after another, and for surrogates.

    A text without FORBIDDEN characters, without a SECOND_HALF right after a first half, and with ORDERED marks in
    rising order is already in NFC. The opening quotation mark ‘ is forbidden too, as it changes the meaning of ’.
    """
    if character in ("’", "'"):
        return APOSTROPHE
    if character == "‘" or "\ud800" <= character <= "\udfff":
        return FORBIDDEN
    if character.isspace() or character in (JOINED, SPACED, "\0"):
        return SPACE
    first, second = _halves()
    if unicodedata.normalize("NFC", character) != character or (character in second and not second[character]):
        return FORBIDDEN
    if character in second:
        return SECOND_ORDERED if unicodedata.combining(character) else SECOND_HALF
    return _mark(character, character in first) or _plain(character, character in first)


def _plain(character: str, is_half: bool) -> str:
    lower = "s" if character == "ſ" else character.lower()  # like case-insensitive regular expressions
    if lower in CLITIC_LETTERS + "w":
        return lower
    if "a" <= lower <= "z":
        return LETTER
    if character.isdecimal():
        return DIGIT
    if character.isalnum() or character == "_":
        return FIRST_HALF if is_half else WORD
    if character in _NAMED:
        return _NAMED[character]
    if "\U0001f1e6" <= character <= "\U0001f1ff":
        return FLAG
    return TONE if "\U0001f3fb" <= character <= "\U0001f3ff" else SYMBOL


def _mark(character: str, is_half: bool) -> str | None:
    if not _is_mark(character):
        return None
    order = unicodedata.combining(character)
    if order == 0:
        return MARK_HALF if is_half else MARK
    if order < 7:  # may be between two halves
        return FORBIDDEN
    return ORDERED[sum(order >= first for first in _LEVELS) - 1]


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


@cache
def _halves() -> tuple[frozenset[str], dict[str, bool]]:
    """Characters that NFC composes with the next one, and those next ones: true for vowel signs and dots of Indic
    scripts; the others are accents and parts of Korean syllables, whose compositions are written as one character."""
    firsts: dict[str, set[str]] = {}
    for code in _COMPOSED:
        parts = unicodedata.decomposition(chr(code))
        if parts and parts[0] != "<" and " " in parts:
            first, second = (chr(int(part, 16)) for part in parts.split())
            if unicodedata.normalize("NFC", first + second) == chr(code):
                firsts.setdefault(second, set()).add(first)
    allowed = {second: _is_mark(second) and unicodedata.combining(second) in (0, 7) for second in firsts}
    allowed |= {chr(code): False for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    return frozenset(first for second, group in firsts.items() if allowed[second] for first in group), allowed
