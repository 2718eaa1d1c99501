"""Selection of words by a list, and by bounds on properties from a table or built in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from dlmctl.errors import RecipeError, first_few
from dlmctl.text.spelling import folded
from dlmctl.text.word_counts import FILE, WordCounts
from dlmctl.text.word_properties import BUILT_IN, COUNTED, built_in_property

from .word_lists import Bound, Value, WordTable, read_list, read_table

# The largest magnitude of a bound; comparisons with it also reject NaN and infinity.
MAX_BOUND = 1e15
# The most words that a message names.
MAX_NAMED = 3


def bounds_of(name: str, value: object) -> Bound:
    """The bounds of a property from a recipe: a number, least and most (null for no bound), or names.

    Raises:
        ValueError: the value has another form.
    """
    if isinstance(value, str) and value.strip():
        return frozenset([value.strip().casefold()])
    if isinstance(value, list) and value and all(isinstance(item, str) and item.strip() for item in value):
        return frozenset(item.strip().casefold() for item in value)
    ends = value if isinstance(value, list) else [value, value]
    numbers = [float(end) if _is_number(end) else None for end in ends]
    if len(ends) != 2 or ends.count(None) != numbers.count(None):
        form = f"`{name[:40]}: [least, most]`, with null for no bound, or as names, `{name[:40]}: [A1, A2]`"
        raise ValueError(f"the bounds of {name[:40]!r} are given as {form}, not {str(value)[:40]!r}")
    return in_order(name, numbers)


def in_order(name: str, bounds: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The least and the most of a number that is named; None for no bound.

    Raises:
        ValueError: neither is given, or the least is more than the most.
    """
    low, high = bounds
    if low is None and high is None:
        form = f"`{name[:40]}: [least, most]`, with null for one of them at most"
        raise ValueError(f"the bounds of {name[:40]!r} are given as {form}")
    if low is not None and high is not None and low > high:
        raise ValueError(f"the bounds of {name[:40]!r} go from {low:g} down to {high:g}; the lower one comes first")
    return low, high


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_BOUND


def describe_bound(bound: Bound) -> str:
    """Bounds in words."""
    if isinstance(bound, frozenset):
        return " or ".join(sorted(bound))
    low, high = bound
    if low is None or high is None:
        return f"up to {high:,g}" if low is None else f"{low:,g} or more"
    return f"{low:,g}" if low == high else f"{low:,g} to {high:,g}"


def is_within(value: Value, bound: Bound) -> bool:
    """Whether the value of a property is within bounds; an unknown value is not."""
    if isinstance(bound, frozenset):
        return isinstance(value, str) and value.casefold() in bound
    low, high = bound
    return isinstance(value, float) and (low is None or low <= value) and (high is None or value <= high)


@dataclass(frozen=True, eq=False)
class WordFilter:
    """Conditions on single words.

    Args:
        listed: the allowed words as written, by their folded spelling; None for any.
        origin: description of the list, for messages.
        table: properties of words.
        bounds: the bounds of each property.
        counts: word counts of the model's training text, for frequencies.
    """

    listed: Mapping[str, str] | None
    origin: str
    table: WordTable | None
    bounds: Mapping[str, Bound]
    counts: WordCounts | None

    def properties(self, word: str) -> dict[str, Value]:
        """The properties of a word that have bounds."""
        row = self.table.rows.get(folded(word), {}) if self.table is not None else {}
        return {name: self._property(word, name, row) for name in self.bounds}

    def fault(self, word: str) -> str | None:
        """Why a word does not fit, None if it does."""
        if self.listed is not None and folded(word) not in self.listed:
            return f"is not in {self.origin}"
        for name, value in self.properties(word).items():
            if not is_within(value, self.bounds[name]):
                if value is None:
                    return f"has no {name} in {self.table.name}" if self.table is not None else f"has no {name}"
                return f"has {name} {value:,g}" if isinstance(value, float) else f"has {name} {value}"
        return None

    def missing_words(self, known: Collection[str], split: Callable[[str], Sequence[str]]) -> str | None:
        """A sentence about the words of the list that can never occur; None if all can.

        Args:
            known: the words that the model knows.
            split: splits raw text into words as the model does.
        """
        if self.listed is None:
            return None
        missing = [self.listed[word] for word in sorted(self.listed.keys() - set(map(folded, known)))]
        if not missing:
            return None
        several = [word for word in missing if len(split(word)) > 1]
        parts = [
            f"of the {len(self.listed):,} words of {self.origin} the model knows {len(self.listed) - len(missing):,}"
        ]
        if unknown := [word for word in missing if word not in several]:
            parts.append(f"it does not know {_first_few(unknown)}")
        if several:
            parts.append(f"{_first_few(several)} {'are' if len(several) > 1 else 'is'} more than one word to it")
        return f"{'; '.join(parts)}."

    def no_word_left(self, known: Sequence[str]) -> RecipeError:
        """The error if none of the words ``known``, which are otherwise possible, fits."""
        possible = {folded(word): word for word in known}
        parts = [f"{len(possible):,} words of the model are possible there"]
        if self.listed is not None:
            met = sum(word in possible for word in self.listed)
            parts.append(f"{met:,} of them are among the {len(self.listed):,} of {self.origin}")
        if self.table is not None:
            met = sum(word in possible for word in self.table.rows)
            parts.append(f"{met:,} of them are among the {len(self.table.rows):,} of {self.table.name}")
        for name, bound in self.bounds.items():
            values = [value for word in possible.values() if (value := self.properties(word)[name]) is not None]
            count = sum(is_within(value, bound) for value in values)
            parts.append(f"{count:,} have {name} {describe_bound(bound)}{_value_range(values)}")
        return RecipeError(
            f"no word is left: {', '.join(parts)}.", where="lexicon", remedy="Widen the bounds or the list."
        )

    def _property(self, word: str, name: str, row: Mapping[str, Value]) -> Value:
        if self.table is not None and name in self.table.columns:
            return row.get(name)
        return built_in_property(word, name, self.counts)


def _first_few(words: Sequence[str]) -> str:
    return first_few(list(map(repr, words)), MAX_NAMED)


def _value_range(values: Sequence[Value]) -> str:
    numbers = [value for value in values if isinstance(value, float)]
    return f" (there are {min(numbers):,g} to {max(numbers):,g})" if numbers else ""


def word_filter(
    words: Sequence[str] | None,
    file: str | None,
    table: tuple[str | None, str],
    bounds: Mapping[str, Bound],
    counts: WordCounts | None,
) -> WordFilter:
    """The conditions on words, with their files read.

    Args:
        words, file: a list of words, or a file with one.
        table: the file of a table, and its column with the words.
        counts: word counts of the model's training text.

    Raises:
        UserError: a file cannot be read or lacks a column, or the model has no counts for a frequency.
    """
    listed: Mapping[str, str] | None = None
    if words is not None:
        listed = {folded(word.strip()): word.strip() for word in words}
    origin = "the list"
    if file is not None:
        listed, origin = read_list(file), file
    path, column = table
    properties = _read(path, column, bounds) if path is not None else None
    for name in COUNTED:
        if name in bounds and counts is None and (properties is None or name not in properties.columns):
            what = f"the model has no counts of its training text ({FILE}), from which `{name}` is computed."
            raise RecipeError(what, where="lexicon", remedy=f"Give a `table` with a column `{name}`.")
    return WordFilter(listed, origin, properties, bounds, counts)


def _read(path: str, column: str, bounds: Mapping[str, Bound]) -> WordTable:
    """A table with the columns that have bounds; built-in properties need not be among them."""
    numbers = [name for name, bound in bounds.items() if not isinstance(bound, frozenset)]
    names = [name for name, bound in bounds.items() if isinstance(bound, frozenset)]
    return read_table(path, column, numbers, names, optional=BUILT_IN)
