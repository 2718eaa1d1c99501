"""Spell out an automaton over words as one over characters, for models whose tokens are parts of words.

Words that controls name are distinguished individually, all others only by their classes in ``syntax.CLASSES``. A text
is in the language if and only if its words, as found by ``split_words``, are, except for the few texts that
``text.boundaries`` excludes. Where words begin and end becomes clear only some characters later, so the automaton
follows all possible readings (subset construction, Rabin & Scott 1959).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np

from dlmctl.control.automata.dfa import DEAD, OUTSIDE, Automaton, Bools, Ints, TooLarge, reduced
from dlmctl.control.automata.languages import Alphabet
from dlmctl.control.automata.syntax import CLASSES
from dlmctl.text.boundaries import START, Place, moves
from dlmctl.text.characters import FORBIDDEN, kind
from dlmctl.text.written_spaces import Spaces

# Limit on an automaton over characters while it is built; the minimal one often has half as many states.
MAX_CHARACTER_STATES = 1 << 14

# One word for each combination of word classes; every word that no control names is equivalent to one of them.
SHAPES = ("!", "0", "A", "a", "aA", "Ⓐ", "ⓐ")

# The shape of a word so far: whether its first character is upper case; whether it has a letter or digit; whether it
# has no cased letters (0), only lower-case ones (1) or others (2); and how far it is a number.
Shape = tuple[bool, bool, int, int]
_NO_SHAPE: Shape = (False, False, 0, 0)
_NUMBER, _AFTER_SIGN, _NO_NUMBER = 1, 2, 3
# In place of a node of the trie: no named word that matters begins like this.
UNNAMED = -1


class Reading(NamedTuple):
    """One possible reading of the text so far.

    Attributes:
        place: the place between two characters, as of ``text.boundaries``.
        state: the state of the automaton over words.
        word: the word so far, as a node of the trie of named words or ``UNNAMED``, and its shape; None between words.
        barred: the named words that may not be next, or be the word that is read now; and those that may not be next
            after a space.
    """

    place: Place
    state: int
    word: tuple[int, Shape] | None
    barred: Barred


Barred: TypeAlias = tuple[frozenset[int], frozenset[int]]
_NONE: Barred = (frozenset(), frozenset())


class Symbol(NamedTuple):
    """What the language distinguishes about a character.

    Attributes:
        kind: its kind, as of ``text.characters``.
        character: the character itself if a named word contains it, else empty.
        shape: its contribution to the shape of a word.
    """

    kind: str
    character: str
    shape: Shape


def alphabet_for(words: Sequence[str]) -> Alphabet:
    """An alphabet of the words that controls name, and one word of each shape for all others."""
    return Alphabet([*SHAPES, *dict.fromkeys(words)])


class Spelled:
    """The automaton over characters of a language of words.

    Args:
        language: an automaton over ``alphabet``.
        alphabet: as of ``alphabet_for``.
        characters: the characters that texts may contain.
        spaces: whether a space is between two named words where one follows the other.

    Attributes:
        named: the characters of named words.
        table: ``[S, C]``, the next state for each state and class of characters (``class_of``).
        accepting: ``[S]``.

    Raises:
        TooLarge: the automaton would be too large.
    """

    def __init__(self, language: Automaton, alphabet: Alphabet, characters: Sequence[str], spaces: Spaces) -> None:
        self.language, self.alphabet = reduced(language), alphabet
        # The next state for each state and word; lists are faster than arrays for single look-ups.
        self.next_state: list[list[int]] = self.language.table[:, self.language.classes].tolist()
        self.allows_unnamed = [any(target != DEAD for target in row[: len(SHAPES)]) for row in self.next_state]
        shape_classes = {int(self.language.classes[index]) for index in range(len(SHAPES))}
        self.uses_shapes = len(shape_classes) > 1
        self._children, self._word_at, paths = _trie(alphabet.words)
        self._followed = self._nodes_that_matter(paths)
        # The characters that continue a word, by node of the trie.
        self._onward: defaultdict[int, set[str]] = defaultdict(set)
        for node, character in self._children:
            self._onward[node].add(character)
        self._paths = {index: frozenset(path) for index, path in paths.items()}
        self._barred = self._barred_after(spaces)
        self.named = frozenset(character for word in alphabet.words[len(SHAPES) :] for character in word or "")
        symbols = [self.symbol(character) for character in (*characters, *sorted(self.named))]
        distinct = list(dict.fromkeys(symbol for symbol in symbols if symbol.kind != FORBIDDEN))
        self.numbers = {symbol: number for number, symbol in enumerate(distinct, start=1)}
        self.table, self.accepting = self._determinised(distinct)
        minimal = reduced(Automaton(np.arange(len(distinct) + 1), self.table, self.accepting))
        self.classes, self.table, self.accepting = minimal.classes, minimal.table, minimal.accepting

    def symbol(self, character: str) -> Symbol:
        """The symbol of a character in this language."""
        plain = "'" if character == "’" else character  # noqa: RUF001 (the sign itself)
        shape = _NO_SHAPE
        if self.uses_shapes:
            case = 1 if plain.islower() else 2 if plain.isupper() or plain.istitle() else 0
            number = _NUMBER if plain.isdecimal() else _AFTER_SIGN if plain in ".,:/" else _NO_NUMBER
            shape = (plain.isupper(), plain.isalnum(), case, number)
        return Symbol(kind(character), plain if plain in self.named else "", shape)

    def class_of(self, character: str) -> int:
        """The column of a character in the table; 0 if no text contains it."""
        return int(self.classes[self.numbers.get(self.symbol(character), 0)])

    def _determinised(self, symbols: Sequence[Symbol]) -> tuple[Ints, Bools]:
        """The table and accepting states over sets of readings; column 0 is OUTSIDE."""
        alike = cache(lambda places: self._alike(places, symbols))
        firsts_at = cache(lambda place, node: self._firsts(alike(frozenset([place])), node, symbols))
        # Readings by number, as they are looked up very often, and the first symbol that each reads like every symbol.
        readings, numbers, firsts = list[Reading](), dict[Reading, int](), list[list[int]]()

        def numbered(reading: Reading) -> int:
            if reading not in numbers:
                numbers[reading] = len(readings)
                readings.append(reading)
                firsts.append(firsts_at(reading.place, reading.word[0] if reading.word else UNNAMED))
            return numbers[reading]

        start = frozenset([numbered(Reading(START, 0, None, _NONE))])
        number, subsets, rows = {start: 0}, [start], list[list[int]]()
        steps: dict[tuple[int, int], list[int]] = {}

        def after(subset: frozenset[int], index: int) -> int:
            successors = set[int]()
            for reading in subset:
                step = reading, firsts[reading][index]
                if step not in steps:
                    steps[step] = list(map(numbered, self._read(readings[reading], symbols[index])))
                successors.update(steps[step])
            following = frozenset(successors)
            if following and following not in number:
                number[following] = len(subsets)
                subsets.append(following)
                if len(subsets) > MAX_CHARACTER_STATES:
                    raise too_large()
            return number[following] if following else DEAD

        while len(rows) < len(subsets):
            subset = subsets[len(rows)]
            members = [readings[reading] for reading in subset]
            onward = set[str]().union(*(self._onward[reading.word[0]] for reading in members if reading.word))
            row, targets = [DEAD], dict[tuple[int, str], int]()
            for index, group in enumerate(alike(frozenset(reading.place for reading in members))):
                character = symbols[index].character
                key = group, character if character in onward else ""
                if key not in targets:
                    targets[key] = after(subset, index)
                row.append(targets[key])
            rows.append(row)
        accepting = [any(self._accepts(readings[reading]) for reading in subset) for subset in subsets]
        return np.array(rows, dtype=np.int64), np.array(accepting, dtype=bool)

    def _firsts(self, groups: Sequence[int], node: int, symbols: Sequence[Symbol]) -> list[int]:
        """For each symbol the number of the first that is read alike in a word at a node of the trie.

        Args:
            groups: as of ``_alike`` for the place.
        """
        first: dict[tuple[int, str], int] = {}
        return [
            first.setdefault((group, symbol.character if symbol.character in self._onward[node] else ""), index)
            for index, (group, symbol) in enumerate(zip(groups, symbols, strict=True))
        ]

    def _alike(self, places: frozenset[Place], symbols: Sequence[Symbol]) -> list[int]:
        """A number for each symbol: the same for those that are read in the same ways from every one of these places,
        except where they continue a named word."""
        numbers: dict[tuple[Hashable, ...], int] = {}
        found = []
        for symbol in symbols:
            ways = tuple(moves(place, symbol.kind) for place in places)
            begins = any(tag == "begin" for way in ways for tag, _ in way) and (0, symbol.character) in self._children
            found.append(numbers.setdefault((ways, symbol.shape, symbol.character if begins else ""), len(numbers)))
        return found

    def _read(self, reading: Reading, symbol: Symbol) -> list[Reading]:
        """The possible readings after one more symbol."""
        readings = list[Reading]()
        for tag, place in moves(reading.place, symbol.kind):
            _, state, word, barred = reading
            if tag != "inside" and word is not None:
                state, barred = self._after(state, word, barred[0])
                word = None
            if tag == "outside":
                barred = (barred[1], barred[1])
            elif state != DEAD:
                word = self._extended(state, word, symbol)
                if word[0] == UNNAMED and not self.allows_unnamed[state]:
                    continue
                spelled = frozenset(index for index in barred[0] if word[0] in self._paths[index])
                barred = (spelled, _NONE[1]) if spelled else _NONE
            if state != DEAD:
                readings.append(Reading(place, state, word, barred))
        return readings

    def _accepts(self, reading: Reading) -> bool:
        _, state, word, barred = reading
        if word is not None:
            state, _ = self._after(state, word, barred[0])
        return reading.place.may_end and state != DEAD and bool(self.language.accepting[state])

    def _after(self, state: int, word: tuple[int, Shape], barred: frozenset[int]) -> tuple[int, Barred]:
        """The state of the automaton over words after a finished word, and the words that are barred next."""
        node, shape = word
        index = self._word_at.get(node)
        if index is None:
            index = _shape_index(shape) if self.uses_shapes else 0
        elif index in barred:
            return DEAD, _NONE
        return self.next_state[state][index], self._barred.get(index, _NONE)

    def _barred_after(self, spaces: Spaces) -> dict[int, Barred]:
        """The named words that are barred next after each named word."""
        barred: dict[int, Barred] = {}
        for (left, right), has_space in spaces.items():
            at, next_at = self.alphabet.ids.get(left), self.alphabet.ids.get(right)
            if at is not None and next_at is not None:
                joined, spaced = barred.get(at, _NONE)
                barred[at] = (joined | {next_at}, spaced) if has_space else (joined, spaced | {next_at})
        return barred

    def _extended(self, state: int, word: tuple[int, Shape] | None, symbol: Symbol) -> tuple[int, Shape]:
        """A word after ``state``, or the beginning of one (None), with one more symbol."""
        node, shape = word if word is not None else (0, None)
        child = self._children.get((node, symbol.character), UNNAMED)
        if child not in self._followed[state]:
            child = UNNAMED
        if not self.uses_shapes:
            return child, _NO_SHAPE
        if shape is None:
            number = _NUMBER if symbol.shape[3] == _NUMBER else _NO_NUMBER
            return child, (*symbol.shape[:3], number)
        is_capital, is_alphanumeric, case, previous = shape
        current = symbol.shape[3]
        number = current if current == _NUMBER and previous != _NO_NUMBER else _NO_NUMBER
        if current == _AFTER_SIGN and previous == _NUMBER:
            number = _AFTER_SIGN
        return child, (is_capital, is_alphanumeric or symbol.shape[1], max(case, symbol.shape[2]), number)

    def _nodes_that_matter(self, paths: Mapping[int, Sequence[int]]) -> list[set[int]]:
        """For each state of the automaton over words, the nodes of the trie that lead to a word which it does not treat
        like unnamed words of the same shape. All others need no states of their own: after each place of a text only
        one of its words matters."""
        shapes = {
            index: _SHAPE_INDICES[_signature(self.alphabet.words[index] or "")] if self.uses_shapes else 0
            for index in paths
        }
        return [
            {node for index, path in paths.items() if row[index] != row[shapes[index]] for node in path}
            for row in self.next_state
        ]


def too_large() -> TooLarge:
    """The error of an automaton over characters or tokens that is too large."""
    return TooLarge(
        "the controls together need an automaton that is too large for this model's tokens.",
        remedy="Ask for fewer words, phrases or changes, less tolerance, shorter texts or repeats, smaller numbers "
        "or a simpler pattern.",
    )


def _trie(words: Sequence[str | None]) -> tuple[dict[tuple[int, str], int], dict[int, int], dict[int, list[int]]]:
    """The trie of the named words; node 0 is the root.

    Returns:
        The child of each node and character; the index in ``words`` of the word that ends at a node; and the nodes on
        the way to each word, by its index.
    """
    children: dict[tuple[int, str], int] = {}
    word_at: dict[int, int] = {}
    paths: dict[int, list[int]] = {}
    for index, word in enumerate(words[len(SHAPES) :], start=len(SHAPES)):
        node, paths[index] = 0, []
        for character in word or "":
            node = children.setdefault((node, character), len(children) + 1)
            paths[index].append(node)
        word_at[node] = index
    return children, word_at, paths


def _shape_index(shape: Shape) -> int:
    """The index in ``SHAPES`` of the word that is equivalent to a word of this shape."""
    is_capital, is_alphanumeric, case, number = shape
    return _SHAPE_INDICES[(is_alphanumeric, number == _NUMBER, is_capital, case == 1)]


def _signature(word: str) -> tuple[bool, bool, bool, bool]:
    """The classes that a word is in."""
    is_word, is_number, is_capitalised, is_lowercase = (
        CLASSES[name](word) for name in ("word", "number", "capitalised", "lowercase")
    )
    return is_word, is_number, is_capitalised, is_lowercase


_SHAPE_INDICES = {_signature(shape): index for index, shape in enumerate(SHAPES)}
assert OUTSIDE == 0
