"""The automaton that splits texts into words does what ``split_words`` does, character by character."""

# ruff: noqa: RUF001 (signs of many scripts stand here on purpose)

import random
import unicodedata

import pytest

from dlmctl.text.boundaries import START, moves
from dlmctl.text.characters import FORBIDDEN, KINDS, kind
from dlmctl.text.tokens import plain_words

# What rules of splitting and of NFC are about, the usual beside the rare.
SIGNS = [
    *"astrelmvdwWB70_'·.,:/-@+! \n",
    "é",
    "ß",
    "中",
    "’",
    "“",
    "👩",
    "\u200d",
    "\u200c",
    "🇩",
    "🇫",
    "🏽",
    "☕",
    "\ufe0f",
]
SIGNS += [
    "\u0301",
    "\u093f",
    "न",
    "\u093c",
    "ক",
    "\u09c7",
    "\u09be",
    "\u0e31",
    "\u0e48",
    "ש",
    "\u05b8",
    "\u05c1",
    "ſ",
    "²",
    "‘",
]
USUAL = [*"astrelw '’.-7,:@"]


def splits(text):
    """Every way to split a text that keeps its promises."""
    open_ = {(START, ())}
    for sign in text:
        here = {"’": "'"}.get(sign, sign)
        found = set()
        for place, words in open_:
            for tag, after in moves(place, kind(sign)):
                grown = (*words[:-1], words[-1] + here) if tag == "inside" else words
                found.add((after, (*words, here) if tag == "begin" else grown))
        open_ = found
    return [list(words) for place, words in open_ if place.may_end]


@pytest.mark.parametrize("signs", [SIGNS, USUAL])
def test_texts_at_random_are_split_as_split_words_does(signs):
    stream, kept = random.Random(7), 0
    for _ in range(1200):
        text = "".join(stream.choice(signs) for _ in range(stream.randint(1, 12)))
        found = splits(text)
        if found:
            assert found == [plain_words(text)], repr(text)
            assert unicodedata.is_normalized("NFC", text)
            kept += 1
    assert kept > 500


@pytest.mark.parametrize(
    "text",
    [
        "The soup—so cheap—is good, from London–Paris.",
        "It isn't o'clock: they’re at 10.50pm... or 9 p.m., we'll see",
        "लैंटर्न में खाना मिलता है।",
        "தமிழ் மொழி அழகு.",
        "مُحَمَّدٌ كَتَبَ، نعم؟",
        "שָׁלוֹם עוֹלָם!",
        "ร้านนี้ดีมาก ที่นี่",
        "the cook 👩\u200d🍳 and 👍🏽 🇩🇪🇫🇷!",
        "磨坊餐厅提供菜，在河边0。",
        "C++ and C# he wrote --- fish & chips at the B&B",
        "@user said: a.b.c. and U.S.A.-made",
    ],
)
def test_texts_of_many_scripts(text):
    assert splits(text) == [plain_words(text)]


@pytest.mark.parametrize(
    "text", ["see www.mill.co.uk", "https://mill.uk", "me@mill.uk", "say ‘no’", "e\u0301", "a\ud800"]
)
def test_what_is_left_out(text):
    assert not splits(text)


def test_there_are_few_places():
    seen, waiting = {START}, [START]
    while waiting:
        place = waiting.pop()
        fresh = {after for sign in KINDS for _, after in moves(place, sign)} - seen
        seen |= fresh
        waiting += fresh
    assert len(seen) < 120
    assert not any(moves(place, FORBIDDEN) for place in seen)
