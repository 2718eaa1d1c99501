"""Lift an automaton over characters to one over tokens: for every state and token, the state after the token's string.

As in Willard & Louf (2023, arXiv 2307.09702) for autoregressive models, but for all states at once: a string acts as a
function from states to states, the tokens of a vocabulary have few distinct functions, and tokens with the same one
form a class. All tokens are read together, character by character; a step that was computed before is a look-up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from dlmctl.control.automata.dfa import DEAD, Automaton, Bools, Ints, TooLarge, reduced
from dlmctl.control.automata.spelled import Spelled, too_large
from dlmctl.text.characters import kind

# Limit on a table over tokens, of which a step of inference holds a copy per row unless most of its cells are empty.
MAX_TOKEN_CELLS = 1 << 22
# Limits on automata over tokens most of whose cells are empty; a step of inference visits every transition at every
# position, which takes seconds for a few texts with as many as are allowed.
MAX_SPARSE_STATES, MAX_SPARSE_CELLS, MAX_SPARSE_TRANSITIONS = 1 << 14, 1 << 24, 1 << 19
# UTF-8 prefixes that are tokens of many vocabularies, and whose characters are of several types: emoji; quotation marks
# and dashes; accented letters. A token may end with them.
_ENDING_LEADS = (b"\xf0\x9f", b"\xe2\x80", b"\xc3")
# Prefixes that also get states of their own, but only within a token; for other first bytes all characters are of one
# type, or tokens do not split them.
_INNER_LEADS = tuple(bytes([lead]) for lead in (0xE0, 0xE1, 0xE2, 0xE3, 0xEA, 0xED, 0xEF, 0xF0))
MAX_BYTE_STATES = 1 << 15
_CONTINUATION = range(0x80, 0xC0)


class Units(NamedTuple):
    """The strings of all tokens as sequences of units: characters, and bytes of incomplete characters.

    Attributes:
        characters: the distinct characters, numbered from 256; units below 256 are bytes.
        flat: the units of all tokens, concatenated.
        starts: ``[V + 1]``, the index in ``flat`` where each token starts.
    """

    characters: list[str]
    flat: Ints
    starts: Ints

    @property
    def has_partial_characters(self) -> bool:
        """Whether some token contains an incomplete character."""
        return bool((self.flat < 256).any())


def units_of(strings: Sequence[bytes | None]) -> Units:
    """The units of every token; special tokens (None) have none."""
    units: dict[str, int] = {}
    flat, starts = list[int](), [0]
    for string in strings:
        # An undecodable byte b is the lone surrogate 0xDC00 + b.
        for character in (string or b"").decode("utf-8", "surrogateescape"):
            code = ord(character)
            flat.append(code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else units.setdefault(character, 256 + len(units)))
        starts.append(len(flat))
    return Units(list(units), np.array(flat, dtype=np.int64), np.array(starts, dtype=np.int64))


def characters_for(units: Units) -> list[str]:
    """The characters that a vocabulary can write; one of each type if it can write all of them, byte by byte."""
    return [*units.characters, *(_representatives() if units.has_partial_characters else ())]


@cache
def _representatives() -> list[str]:
    """A character of each ``_type_of``."""
    by_type: dict[tuple[object, ...], str] = {}
    for code in (*range(0x80, 0xD800), *range(0xE000, 0x20000)):
        by_type.setdefault(_type_of(chr(code)), chr(code))
    return list(by_type.values())


def _type_of(character: str) -> tuple[object, ...]:
    """The properties of a character that matter to a language whose named words do not contain it."""
    case = character.isupper(), character.islower(), character.istitle()
    return kind(character), character.isalnum(), character.isdecimal(), *case


@cache
def _completions(lead: bytes) -> list[str]:
    """The characters that begin with ``lead`` and one more byte."""
    characters = []
    for last in _CONTINUATION:
        with contextlib.suppress(UnicodeDecodeError):
            characters.append((lead + bytes([last])).decode())
    return characters


@cache
def _common_representative(lead: bytes) -> str | None:
    """One of the characters that begin with ``lead``, if all are of one type; else None."""
    if len(lead) == 1 and (lead[0] >= 0xF0 or lead in _INNER_LEADS):
        return None
    is_long = _missing_bytes(lead) > 1
    longer = [_common_representative(lead + bytes([last])) for last in _CONTINUATION] if is_long else []
    characters = longer or list(_completions(lead))
    if None in characters or len({_type_of(character) for character in characters if character}) != 1:
        return None
    return characters[0]


def _missing_bytes(lead: bytes) -> int:
    """The number of bytes that are missing after the first bytes of a character."""
    size = 2 if lead[0] < 0xE0 else 3 if lead[0] < 0xF0 else 4
    return size - len(lead)


class _ByteTable(NamedTuple):
    """The transitions of characters and bytes, with states inside characters.

    Attributes:
        table: ``[S', 256 + C]``, columns below 256 are bytes; states from S on are inside a character.
        token_may_end: ``[S']``, whether a token may end in a state.
    """

    table: Ints
    token_may_end: Bools


# Most bytes that may be missing of a character whose type does not depend on them.
_MAX_MISSING = 2


def _with_byte_states(spelled: Spelled, named: Sequence[bytes], *, all_words: bool) -> _ByteTable:
    """Add states inside characters to those between characters.

    If all characters with a prefix are of one type, a state inside them is determined by where they lead; some other
    prefixes have states of their own. The remaining prefixes have no transitions: there, texts are spelled with whole
    characters.

    Args:
        named: prefixes of the characters of named words.
        all_words: whether other words may be spelled with incomplete characters too.
    """
    leads = list(dict.fromkeys([*named, *((*_ENDING_LEADS, *_INNER_LEADS) if all_words else ())]))
    states, width = spelled.table.shape
    # Blocks with a state for each state between characters: these themselves; one and two bytes before them; prefixes.
    first_state = {lead: states * (1 + _MAX_MISSING + index) for index, lead in enumerate(leads)}
    table = np.full((states * (1 + _MAX_MISSING + len(leads)), 256 + width), DEAD, dtype=np.int32)
    block = np.arange(states)
    table[:states, 256:] = spelled.table
    last_bytes = slice(_CONTINUATION.start, _CONTINUATION.stop)
    for missing in range(1, _MAX_MISSING + 1):
        table[states * missing + block, last_bytes] = (states * (missing - 1) + block)[:, None]

    def after(lead: bytes) -> Ints:
        if lead in first_state:
            return first_state[lead] + block
        character = _common_representative(lead) if all_words else None
        target = spelled.table[:, spelled.class_of(character)] if character is not None else np.full(states, DEAD)
        return np.where(target == DEAD, DEAD, target + states * _missing_bytes(lead))

    for byte in range(0xC2, 0xF5):
        table[:states, byte] = after(bytes([byte]))
    for lead, start in first_state.items():
        for last in _CONTINUATION if _missing_bytes(lead) > 1 else ():
            table[start + block, last] = after(lead + bytes([last]))
        for character in _completions(lead) if _missing_bytes(lead) == 1 else ():
            table[start + block, character.encode()[-1]] = spelled.table[:, spelled.class_of(character)]
    inner = [first_state[lead] + block for lead in leads if lead not in {*named, *_ENDING_LEADS}]
    token_may_end = ~np.isin(np.arange(len(table)), np.concatenate([[DEAD], *inner]))
    return _pruned(_ByteTable(table, token_may_end), states)


def _pruned(byte_table: _ByteTable, states: int) -> _ByteTable:
    """The same without states inside characters that are unreachable or have no way on.

    Args:
        states: the number of states between characters.
    """
    table, keep = byte_table.table, np.ones(len(byte_table.table), dtype=bool)
    for _ in range(3):  # the most bytes that can be missing
        keep[states:] &= np.append(keep, False)[table[states:]].any(1)
    is_reached = np.zeros(len(table) + 1, dtype=bool)
    is_reached[:states] = True
    for _ in range(3):
        is_reached[table[is_reached[:-1]]] = True
    keep &= is_reached[:-1]
    new_state = np.append(np.where(keep, np.cumsum(keep) - 1, DEAD), DEAD)
    if keep.sum() > MAX_BYTE_STATES:
        raise too_large()
    return _ByteTable(new_state[table[keep]], byte_table.token_may_end[keep])


def lifted(spelled: Spelled, units: Units) -> Automaton:
    """The language of the token sequences whose characters are in a language.

    Raises:
        TooLarge: the automaton would be too large.
    """
    encoded = [character.encode() for character in spelled.named]
    is_partial = units.has_partial_characters
    leads = [string[:size] for string in encoded for size in range(1, len(string))] if is_partial else []
    try:
        return _over_tokens(_with_byte_states(spelled, leads, all_words=is_partial), spelled, units)
    except TooLarge:
        if not is_partial:
            raise
        # Smaller: without incomplete characters, except those of named words.
        return _over_tokens(_with_byte_states(spelled, leads, all_words=False), spelled, units)


def _over_tokens(byte_table: _ByteTable, spelled: Spelled, units: Units) -> Automaton:
    table = byte_table.table
    character_classes = np.array([spelled.class_of(character) for character in units.characters], int)
    columns = np.concatenate([np.arange(256), 256 + character_classes])
    functions = _StateFunctions(table)
    sizes = np.diff(units.starts)
    function_of = np.zeros(len(sizes), dtype=np.int64)  # for each token, the function of its first units
    for at in range(int(sizes.max(initial=0))):
        longer = np.flatnonzero(sizes > at)
        function_of[longer] = functions.after(function_of[longer], columns[units.flat[units.starts[longer] + at]])
    function_of[sizes == 0] = functions.dead
    used = np.unique(function_of)
    # The function that is DEAD everywhere becomes class OUTSIDE.
    used = np.concatenate([[functions.dead], used[used != functions.dead]])
    class_of = np.empty(len(functions.values), dtype=np.int64)
    class_of[used] = np.arange(len(used))
    if len(used) * len(table) > 16 * MAX_TOKEN_CELLS:
        raise too_large()
    token_table = np.stack([functions.values[function] for function in used], axis=1).astype(np.int64)
    token_table = np.where(np.append(byte_table.token_may_end, False)[token_table], token_table, DEAD)
    accepting = np.zeros(len(table), dtype=bool)
    accepting[: len(spelled.accepting)] = spelled.accepting
    automaton = reduced(Automaton(class_of[function_of], token_table, accepting))
    if automaton.table.size > MAX_TOKEN_CELLS:
        raise too_large()
    return automaton


class _StateFunctions:
    """The distinct functions from states to states that strings act as, by number; 0 is the identity."""

    def __init__(self, table: Ints) -> None:
        states = len(table)
        # The last state is a sink for missing transitions.
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
        """The numbers of ``functions [N]``, each followed by one of ``symbols [N]``."""
        width = self.table.shape[1]
        keys, inverse = np.unique(functions * width + symbols, return_inverse=True)
        results = np.empty(len(keys), dtype=np.int64)
        for index, key in enumerate(keys.tolist()):
            if key not in self.steps:
                function, symbol = divmod(key, width)
                self.steps[key] = self._add(self.table[self.values[function], symbol].astype(np.int32))
            results[index] = self.steps[key]
        return results[inverse]
