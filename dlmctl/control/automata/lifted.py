"""An automaton over characters as one over tokens: for every state and token, the state after the token's string.

As in Willard & Louf (2023, arXiv 2307.09702) for autoregressive models, but for all states at once: what a string does
is a function from states to states, the tokens of a vocabulary do few different ones, and tokens that do the same are
one class. So the strings are read character by character, all tokens together, and each step of a function that was
seen before is a look-up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from dlmctl.control.automata.dfa import DEAD, Automaton, Bools, Ints, TooLarge, reduced
from dlmctl.control.automata.spelled import Spelled
from dlmctl.text.characters import kind

# Of a table over tokens, of which a step of inference holds one copy a row.
MAX_TOKEN_CELLS = 1 << 22
# Beginnings of characters of several kinds that are tokens of many vocabularies: of emoji, of quotation marks and
# dashes, of accented letters. A token may end with them.
_FOLLOWED = (b"\xf0\x9f", b"\xe2\x80", b"\xc3")
# Within a token, these are followed too; with other first bytes all characters are alike, or tokens have none in part.
_INSIDE = tuple(bytes([lead]) for lead in (0xE0, 0xE1, 0xE2, 0xE3, 0xEA, 0xED, 0xEF, 0xF0))
MAX_BYTE_STATES = 1 << 15
_LAST = range(0x80, 0xC0)


class Units(NamedTuple):
    """What the strings of all tokens are made of.

    Attributes:
        characters: the distinct ones, numbered from 256; below are the bytes of parts of characters.
        flat: the units of all tokens in a row; starts: ``[V + 1]``, where each token's begin.
    """

    characters: list[str]
    flat: Ints
    starts: Ints

    @property
    def has_parts(self) -> bool:
        """Whether some token has a part of a character."""
        return bool((self.flat < 256).any())


def units_of(strings: Sequence[bytes | None]) -> Units:
    """The units of every token; none of special tokens."""
    numbers: dict[str, int] = {}
    flat, starts = list[int](), [0]
    for string in strings:
        # An undecodable byte b is the lone surrogate 0xDC00 + b.
        for sign in (string or b"").decode("utf-8", "surrogateescape"):
            code = ord(sign)
            flat.append(code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else numbers.setdefault(sign, 256 + len(numbers)))
        starts.append(len(flat))
    return Units(list(numbers), np.array(flat, dtype=np.int64), np.array(starts, dtype=np.int64))


def characters_for(units: Units) -> list[str]:
    """The characters that a vocabulary can write, or one of each sort where it can write all, byte by byte."""
    return [*units.characters, *(_one_of_each() if units.has_parts else ())]


@cache
def _one_of_each() -> list[str]:
    found: dict[tuple[object, ...], str] = {}
    for code in (*range(0x80, 0xD800), *range(0xE000, 0x20000)):
        found.setdefault(_sort(chr(code)), chr(code))
    return list(found.values())


def _sort(character: str) -> tuple[object, ...]:
    """What a character is to every language whose words do not have it."""
    case = character.isupper(), character.islower(), character.istitle()
    return kind(character), character.isalnum(), character.isdecimal(), *case


@cache
def _continued(lead: bytes) -> list[str]:
    """The characters that begin with these bytes, all but the last one of theirs."""
    found = []
    for last in _LAST:
        with contextlib.suppress(UnicodeDecodeError):
            found.append((lead + bytes([last])).decode())
    return found


@cache
def _alike(lead: bytes) -> str | None:
    """One of the characters that begin with these bytes, where all are of one sort; None where they are not."""
    if len(lead) == 1 and (lead[0] >= 0xF0 or lead in _INSIDE):
        return None
    parts = [_alike(lead + bytes([last])) for last in _LAST] if _missing(lead) > 1 else []
    found = parts or list(_continued(lead))
    if None in found or len({_sort(one) for one in found if one}) != 1:
        return None
    return found[0]


def _missing(lead: bytes) -> int:
    """Bytes that are missing behind the first bytes of a character."""
    size = 2 if lead[0] < 0xE0 else 3 if lead[0] < 0xF0 else 4
    return size - len(lead)


class _Parts(NamedTuple):
    """The table of characters with states in the middle of one.

    Attributes:
        table: ``[S', 256 + C]``, units below 256 being bytes; states from S on are within a character.
        between: ``[S']``, whether a token may end in a state.
    """

    table: Ints
    between: Bools


# Bytes that may be missing of a character that is alike whatever they are.
_MISSING = 2


def _with_parts(spelled: Spelled, named: Sequence[bytes], *, all_words: bool) -> _Parts:
    """States within characters beside those between them.

    Where all characters with a beginning are alike, a state knows where they lead; some other beginnings have states
    of their own. The rest lead nowhere: there, texts are spelled with whole characters.

    Args:
        named: beginnings of the characters of named words.
        all_words: whether other words may have characters in parts too.
    """
    own = list(dict.fromkeys([*named, *((*_FOLLOWED, *_INSIDE) if all_words else ())]))
    states, width = spelled.table.shape
    # Blocks of one state for each state between characters: those; one and two bytes before them; own beginnings.
    first = {lead: states * (1 + _MISSING + at) for at, lead in enumerate(own)}
    table = np.full((states * (1 + _MISSING + len(own)), 256 + width), DEAD, dtype=np.int32)
    here = np.arange(states)
    table[:states, 256:] = spelled.table
    for missing in range(1, _MISSING + 1):
        table[states * missing + here, _LAST.start : _LAST.stop] = (states * (missing - 1) + here)[:, None]

    def within(lead: bytes) -> Ints:
        if lead in first:
            return first[lead] + here
        one = _alike(lead) if all_words else None
        to = spelled.table[:, spelled.class_of(one)] if one is not None else np.full(states, DEAD)
        return np.where(to == DEAD, DEAD, to + states * _missing(lead))

    for byte in range(0xC2, 0xF5):
        table[:states, byte] = within(bytes([byte]))
    for lead, start in first.items():
        for last in _LAST if _missing(lead) > 1 else ():
            table[start + here, last] = within(lead + bytes([last]))
        for character in _continued(lead) if _missing(lead) == 1 else ():
            table[start + here, character.encode()[-1]] = spelled.table[:, spelled.class_of(character)]
    inside = [first[lead] + here for lead in own if lead not in {*named, *_FOLLOWED}]
    between = ~np.isin(np.arange(len(table)), np.concatenate([[DEAD], *inside]))
    return _used(_Parts(table, between), states)


def _used(parts: _Parts, states: int) -> _Parts:
    """The same without states within characters that are not reached or lead nowhere."""
    table, kept = parts.table, np.ones(len(parts.table), dtype=bool)
    for _ in range(3):  # as many bytes as may be missing
        kept[states:] &= np.append(kept, False)[table[states:]].any(1)
    reached = np.zeros(len(table) + 1, dtype=bool)
    reached[:states] = True
    for _ in range(3):
        reached[table[reached[:-1]]] = True
    kept &= reached[:-1]
    number = np.append(np.where(kept, np.cumsum(kept) - 1, DEAD), DEAD)
    if kept.sum() > MAX_BYTE_STATES:
        raise _too_large()
    return _Parts(number[table[kept]], parts.between[kept])


def lifted(spelled: Spelled, units: Units) -> Automaton:
    """The language of the token sequences whose characters are in a language.

    Raises:
        TooLarge: the automaton would be too large.
    """
    encoded = [character.encode() for character in spelled.named]
    leads = [string[:size] for string in encoded for size in range(1, len(string))] if units.has_parts else []
    try:
        return _over_tokens(_with_parts(spelled, leads, all_words=units.has_parts), spelled, units)
    except TooLarge:
        if not units.has_parts:
            raise
        # Without characters in parts, but for those of words that are named.
        return _over_tokens(_with_parts(spelled, leads, all_words=False), spelled, units)


def _over_tokens(parts: _Parts, spelled: Spelled, units: Units) -> Automaton:
    table = parts.table
    columns = np.concatenate([np.arange(256), 256 + np.array([spelled.class_of(one) for one in units.characters], int)])
    functions = _Functions(table)
    sizes = np.diff(units.starts)
    present = np.zeros(len(sizes), dtype=np.int64)
    for at in range(int(sizes.max(initial=0))):
        longer = np.flatnonzero(sizes > at)
        present[longer] = functions.after(present[longer], columns[units.flat[units.starts[longer] + at]])
    present[sizes == 0] = functions.dead
    used = np.unique(present)
    # The class of what leads nowhere is OUTSIDE.
    used = np.concatenate([[functions.dead], used[used != functions.dead]])
    order = np.empty(len(functions.values), dtype=np.int64)
    order[used] = np.arange(len(used))
    if len(used) * len(table) > 16 * MAX_TOKEN_CELLS:
        raise _too_large()
    whole = np.stack([functions.values[number] for number in used], axis=1).astype(np.int64)
    whole = np.where(np.append(parts.between, False)[whole], whole, DEAD)
    accepting = np.zeros(len(table), dtype=bool)
    accepting[: len(spelled.accepting)] = spelled.accepting
    made = reduced(Automaton(order[present], whole, accepting))
    if made.table.size > MAX_TOKEN_CELLS:
        raise _too_large()
    return made


def _too_large() -> TooLarge:
    return TooLarge(
        "what the controls ask for together needs an automaton that is too large for this model's tokens.",
        remedy="Ask for fewer words, shorter repeats or a simpler pattern.",
    )


class _Functions:
    """Functions from states to states, each once: what strings of characters do."""

    def __init__(self, table: Ints) -> None:
        states = len(table)
        # What leads nowhere leads to a last state, and from there back to it.
        self.table = np.vstack([np.where(table == DEAD, states, table), np.full((1, table.shape[1]), states)])
        self.values: list[Ints] = []
        self.numbers: dict[bytes, int] = {}
        self.steps: dict[int, int] = {}
        self._add(np.arange(states, dtype=np.int32))
        self.dead = self._add(np.full(states, states, dtype=np.int32))

    def _add(self, function: Ints) -> int:
        number = self.numbers.setdefault(function.tobytes(), len(self.values))
        if number == len(self.values):
            self.values.append(function)
        return number

    def after(self, functions: Ints, symbols: Ints) -> Ints:
        """Numbers of the functions that follow the given ones ``[N]`` with one more symbol each ``[N]``."""
        width = self.table.shape[1]
        keys, inverse = np.unique(functions * width + symbols, return_inverse=True)
        found = np.empty(len(keys), dtype=np.int64)
        for at, key in enumerate(keys.tolist()):
            if key not in self.steps:
                function, symbol = divmod(key, width)
                self.steps[key] = self._add(self.table[self.values[function], symbol].astype(np.int32))
            found[at] = self.steps[key]
        return found[inverse]
