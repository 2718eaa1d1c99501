"""Word boundaries, character by character: ``split_words`` as an automaton over kinds of characters.

The role of a character depends on the text before it and partly on the text after it: the apostrophe of ``isn't``
begins a word, that of ``o'clock`` does not. So each step guesses whether its character begins a word, continues one or
belongs to none, and makes promises about the next characters; a guess that breaks a promise is dropped. Exactly one
sequence of guesses survives for a text, which is how ``split_words`` splits it, except for texts that these automata do
not cover: with web or mail addresses, ``‘``, or characters that NFC would change (``characters.kind``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

from dlmctl.text.characters import (
    APOSTROPHE,
    DIGIT,
    FIRST_HALF,
    FLAG,
    FORBIDDEN,
    JOINER,
    KINDS,
    LETTERS,
    MARK_HALF,
    MARKS,
    ORDERED,
    SECOND_HALF,
    SECOND_ORDERED,
    SPACE,
    TONE,
    WORD_LIKE,
    ZWJ,
    ZWNJ,
)

Tag = Literal["begin", "inside", "outside"]

SEPARATORS = ".,:/"
_IN_LETTERS = WORD_LIKE + MARKS
_SYMBOLS = "".join(kind for kind in KINDS if kind not in WORD_LIKE + SPACE + ZWJ + ZWNJ + FORBIDDEN)
_ZERO_WIDTH = ZWJ + ZWNJ

_Rules = tuple[tuple[str, str | None], ...]

# The rules of each promise: for the next character, the first rule with its kind gives the promise that follows, None
# if the promise is broken; a kind without a rule fulfils it.
_PROMISES: dict[str, _Rules] = {
    "no letter": ((WORD_LIKE, None),),
    "no letter or mark": ((_IN_LETTERS, None),),
    "no mark": ((MARKS + TONE, None),),
    "no figure": ((DIGIT, None),),
    "no part of a number": ((SEPARATORS, "no figure"),),
    "no letters joined": ((_ZERO_WIDTH, "no letters joined on"), (JOINER, "no letter or mark"), (APOSTROPHE, "clitic")),
    "no letters joined on": ((_ZERO_WIDTH, "no letters joined on"), (_IN_LETTERS, None)),
    # After an apostrophe that follows letters: a clitic, or no letters.
    "clitic": (("stmd", "no letter"), ("rv", "clitic e"), ("l", "clitic l"), (_IN_LETTERS, None)),
    "clitic e": (("e", "no letter"), (KINDS, None)),
    "clitic l": (("l", "no letter"), (KINDS, None)),
    "no clitic": (("stmd", "a letter"), ("rv", "no clitic e"), ("l", "no clitic l")),
    "no clitic e": (("e", "a letter"),),
    "no clitic l": (("l", "a letter"),),
    "a letter": (("".join(kind for kind in KINDS if kind not in WORD_LIKE), None),),
    # After one letter, a full stop and a letter: no second full stop.
    "no initials": ((".", "no initials 2"),),
    "no initials 2": ((LETTERS, "no stop"),),
    "no stop": ((".", None),),
    "no hyphen": (("-", None),),
    "no flag": ((FLAG, None),),
    "no symbol joined": ((ZWJ, "no symbol"),),
    "no symbol": ((_SYMBOLS, None),),
    # Addresses.
    "no mail": (("@", "no host"),),
    "no host": ((WORD_LIKE + "-", None),),
    "no web": (("/", "no web 2"),),
    "no web 2": (("/", None),),
    "no www": (("w", "no www 2"),),
    "no www 2": (("w", "no www 3"),),
    "no www 3": ((".", None),),
    # Sequences that NFC would change.
    "no half": ((SECOND_HALF + SECOND_ORDERED, None),),
    **{f"order {level}": ((SECOND_ORDERED + ORDERED[:number], None),) for number, level in enumerate(ORDERED, start=1)},
}
# Promises that must be fulfilled before a text ends.
_PENDING = frozenset(["a letter", "clitic e", "clitic l"])

# The states of a word, in upper case if it may end there, and the promises that its end makes.
_ENDS: dict[str, frozenset[str]] = {
    "START": frozenset(),
    "FIGURES": frozenset(["no letter or mark", "no letters joined", "no part of a number"]),
    "INITIAL": frozenset(["no letter or mark", "no letters joined", "no initials"]),
    "LETTERS": frozenset(["no letter or mark", "no letters joined"]),
    "NUMBER": frozenset(["no figure", "no part of a number"]),
    "ABBREVIATION": frozenset(["no initials 2"]),
    "CLITIC": frozenset(["no letter"]),
    "SYMBOL": frozenset(["no mark", "no symbol joined"]),
    "STOPS": frozenset(["no stop"]),
    "HYPHENS": frozenset(["no hyphen"]),
    "FLAG": frozenset(),
}

# How a word continues: kinds, the next state, and the promises that it makes.
_INSIDE: dict[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "FIGURES": ((DIGIT, "FIGURES", ()), (SEPARATORS, "number", ())),
    "INITIAL": ((_IN_LETTERS, "LETTERS", ()), (".", "abbreviation 1", ())),
    "LETTERS": ((_IN_LETTERS, "LETTERS", ()),),
    "joined on": ((_ZERO_WIDTH, "joined on", ()), (_IN_LETTERS, "LETTERS", ())),
    "joined": ((_IN_LETTERS, "LETTERS", ()),),
    "number": ((DIGIT, "NUMBER", ()),),
    "NUMBER": ((DIGIT, "NUMBER", ()), (SEPARATORS, "number", ())),
    "abbreviation 1": ((LETTERS, "abbreviation 2", ()),),
    "abbreviation 2": ((".", "ABBREVIATION", ()),),
    "ABBREVIATION": ((LETTERS, "abbreviation 2", ()),),
    "clitic": (("stmd", "CLITIC", ()), ("rv", "clitic e", ()), ("l", "clitic l", ())),
    "clitic e": (("e", "CLITIC", ()),),
    "clitic l": (("l", "CLITIC", ()),),
    "SYMBOL": ((MARKS + TONE, "SYMBOL", ()), (ZWJ, "symbol joined", ())),
    "symbol joined": ((_SYMBOLS, "SYMBOL", ()),),
    "stops": ((".", "STOPS", ()),),
    "STOPS": ((".", "STOPS", ()),),
    "hyphens": (("-", "HYPHENS", ()),),
    "HYPHENS": (("-", "HYPHENS", ()),),
    "flag": ((FLAG, "FLAG", ()),),
}
for _letters in ("FIGURES", "INITIAL", "LETTERS"):
    _INSIDE[_letters] += (
        (_ZERO_WIDTH, "joined on", ()),
        (JOINER, "joined", ()),
        (APOSTROPHE, "joined", ("no clitic",)),
    )
    if _letters == "FIGURES":
        _INSIDE[_letters] += (("".join(kind for kind in _IN_LETTERS if kind != DIGIT), "LETTERS", ()),)

# How a word begins.
_BEGIN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (DIGIT, "FIGURES", ()),
    ("w", "INITIAL", ("no www",)),
    (LETTERS.replace("w", ""), "INITIAL", ()),
    ("".join(kind for kind in _IN_LETTERS if kind not in DIGIT + LETTERS), "LETTERS", ()),
    (APOSTROPHE, "clitic", ()),
    (APOSTROPHE, "SYMBOL", ("no clitic",)),
    (".", "stops", ()),
    (".", "SYMBOL", ("no stop",)),
    ("-", "hyphens", ()),
    ("-", "SYMBOL", ("no hyphen",)),
    (FLAG, "flag", ()),
    (FLAG, "SYMBOL", ("no flag",)),
    ("".join(kind for kind in _SYMBOLS if kind not in MARKS + APOSTROPHE + ".-" + FLAG), "SYMBOL", ()),
)

# The promises that a character makes in every position.
_ALWAYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WORD_LIKE + ".+-", ("no mail",)),
    ":": ("no web",),
    MARK_HALF: ("no half",),
    SECOND_ORDERED: ("order 1",),
    **{level: (f"order {level}",) for level in ORDERED},
}
_ALWAYS[FIRST_HALF] = ("no mail", "no half")


class Place(NamedTuple):
    """A position between two characters: the state of the word so far, and the promises about the next character."""

    word: str
    promises: frozenset[str]

    @property
    def may_end(self) -> bool:
        """Whether a text may end here."""
        return self.word.isupper() and not (self.promises | _ENDS[self.word]) & _PENDING


START = Place("START", frozenset())


@cache
def moves(place: Place, kind: str) -> tuple[tuple[Tag, Place], ...]:
    """The ways to read a character of a kind: its tag, and the place after it."""
    return tuple(_moves(place, kind))


def _moves(place: Place, kind: str) -> Iterator[tuple[Tag, Place]]:
    if kind == FORBIDDEN:
        return
    remaining = _remaining(place.promises, kind)
    always = _ALWAYS.get(kind, ())
    if remaining is not None:
        for kinds, word, promises in _INSIDE.get(place.word, ()):
            if kind in kinds:
                yield "inside", Place(word, remaining.union(promises, always))
    remaining_after_end = _remaining(place.promises | _ENDS[place.word], kind) if place.word.isupper() else None
    if remaining_after_end is None:
        return
    if kind in SPACE + _ZERO_WIDTH:
        yield "outside", Place("START", remaining_after_end.union(always))
        return
    for kinds, word, promises in _BEGIN:
        if kind in kinds:
            yield "begin", Place(word, remaining_after_end.union(promises, always))


def _remaining(promises: frozenset[str], kind: str) -> frozenset[str] | None:
    """The promises that remain after a character of a kind; None if one is broken."""
    remaining = set()
    for promise in promises:
        for kinds, next_promise in _PROMISES[promise]:
            if kind in kinds:
                if next_promise is None:
                    return None
                remaining.add(next_promise)
                break
    return frozenset(remaining)
