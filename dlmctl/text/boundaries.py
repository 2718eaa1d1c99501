"""Where words begin, character by character: ``split_words`` as an automaton over kinds of characters.

What a character does depends on what stands before it and on some of what comes after it: the apostrophe of ``isn't``
begins a word, that of ``o'clock`` does not. So a step guesses whether its character begins a word, goes on with one or
belongs to none, and leaves promises about the next characters; a guess that breaks a promise is dropped. Of all
guesses for a text exactly one is left, which is how ``split_words`` splits it, unless the text has what these automata
leave out: web and mail addresses, ``‘``, and characters that NFC would change (``characters.kind``).
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

# A promise: for the next character the first rule with its kind, which gives the promise that follows, None where it is
# broken; a kind without a rule keeps it.
_PROMISES: dict[str, _Rules] = {
    "no letter": ((WORD_LIKE, None),),
    "no letter or mark": ((_IN_LETTERS, None),),
    "no mark": ((MARKS + TONE, None),),
    "no figure": ((DIGIT, None),),
    "no part of a number": ((SEPARATORS, "no figure"),),
    "no letters joined": ((_ZERO_WIDTH, "no letters joined on"), (JOINER, "no letter or mark"), (APOSTROPHE, "clitic")),
    "no letters joined on": ((_ZERO_WIDTH, "no letters joined on"), (_IN_LETTERS, None)),
    # Behind the apostrophe after letters: a clitic, or no letters.
    "clitic": (("stmd", "no letter"), ("rv", "clitic e"), ("l", "clitic l"), (_IN_LETTERS, None)),
    "clitic e": (("e", "no letter"), (KINDS, None)),
    "clitic l": (("l", "no letter"), (KINDS, None)),
    "no clitic": (("stmd", "a letter"), ("rv", "no clitic e"), ("l", "no clitic l")),
    "no clitic e": (("e", "a letter"),),
    "no clitic l": (("l", "a letter"),),
    "a letter": (("".join(kind for kind in KINDS if kind not in WORD_LIKE), None),),
    # Behind one letter, a full stop and a letter: no second full stop.
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
    # What NFC would change.
    "no half": ((SECOND_HALF + SECOND_ORDERED, None),),
    **{f"order {level}": ((SECOND_ORDERED + ORDERED[:number], None),) for number, level in enumerate(ORDERED, start=1)},
}
# Promises that a text must not end with.
_UNKEPT = frozenset(["a letter", "clitic e", "clitic l"])

# What a word is so far; upper case where it may end. What its end promises.
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

# How a word goes on: kinds, what it is then, and what that promises.
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

# What a character promises wherever it stands.
_ALWAYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WORD_LIKE + ".+-", ("no mail",)),
    ":": ("no web",),
    MARK_HALF: ("no half",),
    SECOND_ORDERED: ("order 1",),
    **{level: (f"order {level}",) for level in ORDERED},
}
_ALWAYS[FIRST_HALF] = ("no mail", "no half")


class Place(NamedTuple):
    """Between two characters: what the word is so far, and what is promised of the next."""

    word: str
    promises: frozenset[str]

    @property
    def may_end(self) -> bool:
        """Whether a text may end here."""
        return self.word.isupper() and not (self.promises | _ENDS[self.word]) & _UNKEPT


START = Place("START", frozenset())


@cache
def moves(place: Place, kind: str) -> tuple[tuple[Tag, Place], ...]:
    """The ways to read a character of a kind: what it is to its word, and where one stands then."""
    return tuple(_moves(place, kind))


def _moves(place: Place, kind: str) -> Iterator[tuple[Tag, Place]]:
    if kind == FORBIDDEN:
        return
    kept = _kept(place.promises, kind)
    always = _ALWAYS.get(kind, ())
    if kept is not None:
        for kinds, word, promises in _INSIDE.get(place.word, ()):
            if kind in kinds:
                yield "inside", Place(word, kept.union(promises, always))
    after = _kept(place.promises | _ENDS[place.word], kind) if place.word.isupper() else None
    if after is None:
        return
    if kind in SPACE + _ZERO_WIDTH:
        yield "outside", Place("START", after.union(always))
        return
    for kinds, word, promises in _BEGIN:
        if kind in kinds:
            yield "begin", Place(word, after.union(promises, always))


def _kept(promises: frozenset[str], kind: str) -> frozenset[str] | None:
    """What is still promised after a character of a kind; None if a promise is broken."""
    left = set()
    for promise in promises:
        for kinds, follows in _PROMISES[promise]:
            if kind in kinds:
                if follows is None:
                    return None
                left.add(follows)
                break
    return frozenset(left)
