"""An automaton over words spelled out: the same language over characters, for models whose tokens are parts of words.

The words that controls name are told apart, and all others by what ``syntax.CLASSES`` says of them. A text is in the
language exactly if the words that ``split_words`` finds in it are, but for the few texts that ``text.boundaries``
leaves out. Which of the guesses for a text is the right one shows some characters later, so the automaton follows them
all (subset construction, Rabin & Scott 1959).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlmctl.control.automata.dfa import DEAD, OUTSIDE, Automaton, Bools, Ints, reduced, require_size
from dlmctl.control.automata.languages import Alphabet
from dlmctl.control.automata.syntax import CLASSES
from dlmctl.text.boundaries import START, Place, moves
from dlmctl.text.characters import FORBIDDEN, kind

# A word for each of what the classes of patterns tell apart; every word that no control names is as one of them.
SHAPES = ("!", "0", "A", "a", "aA", "Ⓐ", "ⓐ")

# Of a word so far: whether its first letter is a capital, whether it has a letter or figure, whether its letters are
# none, all small or not, and how much of a number it is.
Shape = tuple[bool, bool, int, int]
_NO_SHAPE: Shape = (False, False, 0, 0)
_NUMBER, _AFTER_SIGN, _NO_NUMBER = 1, 2, 3


class Reading(NamedTuple):
    """A guess: the place between two characters, the state of the automaton over words, and the word so far, as a node
    of the tree of named words (-1: none begins so) with its shape; None between words."""

    place: Place
    state: int
    word: tuple[int, Shape] | None


class Symbol(NamedTuple):
    """What one character is: its kind, itself where a named word has it, and what it makes of a word's shape."""

    kind: str
    character: str
    shape: Shape


def alphabet_for(words: Sequence[str]) -> Alphabet:
    """The words that controls name, and one of each shape for all others."""
    return Alphabet([*SHAPES, *dict.fromkeys(words)])


class Spelled:
    """The characters of a language of words.

    Args:
        language: over ``alphabet``.
        alphabet: as of ``alphabet_for``.
        characters: those that texts may have.

    Attributes:
        symbols: the number of each character; 0 for those that no text has.
        table: ``[S, symbols]``; accepting: ``[S]``.

    Raises:
        TooLarge: the automaton would be too large.
    """

    def __init__(self, language: Automaton, alphabet: Alphabet, characters: Sequence[str]) -> None:
        self.language, self.alphabet = language, alphabet
        # Of each state and word the state that follows; lists, which are quicker one by one.
        self.to: list[list[int]] = language.table[:, language.classes].tolist()
        self.any_word = [any(to != DEAD for to in row[: len(SHAPES)]) for row in self.to]
        shapes = {int(language.classes[at]) for at in range(len(SHAPES))}
        self.shaped = len(shapes) > 1
        self._children, self._ends, self._below = _tree_of(alphabet.words)
        self.named = frozenset(character for word in alphabet.words[len(SHAPES) :] for character in word or "")
        found = [self.symbol(character) for character in (*characters, *sorted(self.named))]
        distinct = list(dict.fromkeys(one for one in found if one.kind != FORBIDDEN))
        self.numbers = {one: number for number, one in enumerate(distinct, start=1)}
        self.table, self.accepting = self._determinised(distinct)
        small = reduced(Automaton(np.arange(len(distinct) + 1), self.table, self.accepting))
        self.classes, self.table, self.accepting = small.classes, small.table, small.accepting

    def symbol(self, character: str) -> Symbol:
        """What a character is to this language."""
        same = "'" if character == "’" else character  # noqa: RUF001 (the sign itself)
        shape = _NO_SHAPE
        if self.shaped:
            case = 1 if same.islower() else 2 if same.isupper() or same.istitle() else 0
            number = _NUMBER if same.isdecimal() else _AFTER_SIGN if same in ".,:/" else _NO_NUMBER
            shape = (same.isupper(), same.isalnum(), case, number)
        return Symbol(kind(character), same if same in self.named else "", shape)

    def class_of(self, character: str) -> int:
        """The column of a character in the table; 0 if no text has it."""
        return int(self.classes[self.numbers.get(self.symbol(character), 0)])

    def _determinised(self, symbols: Sequence[Symbol]) -> tuple[Ints, Bools]:
        first = frozenset([Reading(START, 0, None)])
        number, sets, rows = {first: 0}, [first], list[list[int]]()
        steps: dict[tuple[Reading, int], list[Reading]] = {}
        while len(rows) < len(sets):
            here, row = sets[len(rows)], [DEAD]
            for at, symbol in enumerate(symbols):
                after = set[Reading]()
                for reading in here:
                    if (reading, at) not in steps:
                        steps[reading, at] = self._read(reading, symbol)
                    after.update(steps[reading, at])
                found = frozenset(after)
                if found and found not in number:
                    number[found] = len(sets)
                    sets.append(found)
                    require_size(len(sets), len(symbols) + 1)
                row.append(number[found] if found else DEAD)
            rows.append(row)
        accepting = [any(self._accepts(reading) for reading in one) for one in sets]
        return np.array(rows, dtype=np.int64), np.array(accepting, dtype=bool)

    def _read(self, reading: Reading, symbol: Symbol) -> list[Reading]:
        found = []
        for tag, place in moves(reading.place, symbol.kind):
            state, word = reading.state, reading.word
            if tag != "inside" and word is not None:
                state, word = self._finished(state, word), None
            if tag != "outside" and state != DEAD:
                word = self._grown(word, symbol)
                if not self._leads_on(state, word[0]):
                    continue
            if state != DEAD:
                found.append(Reading(place, state, word))
        return found

    def _accepts(self, reading: Reading) -> bool:
        state = reading.state if reading.word is None else self._finished(reading.state, reading.word)
        return reading.place.may_end and state != DEAD and bool(self.language.accepting[state])

    def _finished(self, state: int, word: tuple[int, Shape]) -> int:
        node, shape = word
        index = self._ends.get(node)
        if index is None:
            index = _shape_number(shape) if self.shaped else 0
        return self.to[state][index]

    def _grown(self, word: tuple[int, Shape] | None, symbol: Symbol) -> tuple[int, Shape]:
        node, shape = word if word is not None else (0, None)
        child = self._children.get((node, symbol.character), -1)
        if not self.shaped:
            return child, _NO_SHAPE
        if shape is None:
            number = _NUMBER if symbol.shape[3] == _NUMBER else _NO_NUMBER
            return child, (*symbol.shape[:3], number)
        capital, letters, case, number = shape
        before, here = number, symbol.shape[3]
        number = here if here == _NUMBER and before != _NO_NUMBER else _NO_NUMBER
        if here == _AFTER_SIGN and before == _NUMBER:
            number = _AFTER_SIGN
        return child, (capital, letters or symbol.shape[1], max(case, symbol.shape[2]), number)

    def _leads_on(self, state: int, node: int) -> bool:
        """Whether some word that begins so can follow."""
        if self.any_word[state]:
            return True
        return node >= 0 and any(self.to[state][index] != DEAD for index in self._below[node])


def _tree_of(words: Sequence[str | None]) -> tuple[dict[tuple[int, str], int], dict[int, int], list[list[int]]]:
    """The tree of the named words: the node behind each node and character, the word that ends at a node, and the words
    below each node. Words are numbers in the alphabet; node 0 is the root."""
    children: dict[tuple[int, str], int] = {}
    ends: dict[int, int] = {}
    below: list[list[int]] = [[]]
    for index, word in enumerate(words[len(SHAPES) :], start=len(SHAPES)):
        node = 0
        for character in word or "":
            if (node, character) not in children:
                children[node, character] = len(below)
                below.append([])
            node = children[node, character]
            below[node].append(index)
        ends[node] = index
    return children, ends, below


def _shape_number(shape: Shape) -> int:
    capital, letters, case, number = shape
    is_number, small = number == _NUMBER, case == 1
    return _SHAPES[(letters, is_number, capital, small)]


def _signature(word: str) -> tuple[bool, bool, bool, bool]:
    of = (CLASSES[name](word) for name in ("word", "number", "capitalised", "lowercase"))
    word_, number, capital, small = of
    return word_, number, capital, small


_SHAPES = {_signature(shape): number for number, shape in enumerate(SHAPES)}
assert OUTSIDE == 0
