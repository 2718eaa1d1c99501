"""Which words fit: a list, and bounds on properties that a table has or that come along."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from dlmctl.errors import RecipeError
from dlmctl.text.spelling import letters
from dlmctl.text.word_counts import FILE, WordCounts

from .word_lists import Bound, Value, WordTable, read_list, read_table

# Of a bound; what is not a number at all is beyond it, too.
MOST_NUMBER = 1e15
BUILT_IN = ("letters", "frequency")
# Words that a message names.
NAMED = 3


def bounds_of(name: str, value: object) -> Bound:
    """What a recipe says of a property: a number, least and most (null for no end), or names.

    Raises:
        ValueError: it says something else.
    """
    if isinstance(value, str) and value.strip():
        return frozenset([value.strip().casefold()])
    if isinstance(value, list) and value and all(isinstance(one, str) and one.strip() for one in value):
        return frozenset(one.strip().casefold() for one in value)
    ends = value if isinstance(value, list) else [value, value]
    numbers = [float(one) if _is_number(one) else None for one in ends]
    if len(ends) != 2 or ends.count(None) != numbers.count(None) or numbers == [None, None]:
        form = f"`{name[:40]}: [least, most]`, with null for no end, or as names, `{name[:40]}: [A1, A2]`"
        raise ValueError(f"{name[:40]!r} is given bounds as {form}, not {str(value)[:40]!r}")
    low, high = numbers
    if low is not None and high is not None and low > high:
        raise ValueError(f"the bounds of {name[:40]!r} go from {low:g} down to {high:g}; the lower one comes first")
    return low, high


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_NUMBER


def said(bound: Bound) -> str:
    """Bounds in words."""
    if isinstance(bound, frozenset):
        return " or ".join(sorted(bound))
    low, high = bound
    if low is None or high is None:
        return f"up to {high:,g}" if low is None else f"{low:,g} or more"
    return f"{low:,g}" if low == high else f"{low:,g} to {high:,g}"


def within(value: Value, bound: Bound) -> bool:
    """Whether a property that is known lies within bounds."""
    if isinstance(bound, frozenset):
        return isinstance(value, str) and value.casefold() in bound
    low, high = bound
    return isinstance(value, float) and (low is None or low <= value) and (high is None or value <= high)


@dataclass(frozen=True)
class Words:
    """What is asked of words.

    Args:
        listed: words as written by what they are in lower case, None for any; origin: what they are called in messages.
        table: properties of words; bounds: of each property.
        counts: of the model's training text, for ``frequency``.
    """

    listed: Mapping[str, str] | None
    origin: str
    table: WordTable | None
    bounds: Mapping[str, Bound]
    counts: WordCounts | None

    def properties(self, word: str) -> dict[str, Value]:
        """The properties of a word that there are bounds for."""
        row = self.table.rows.get(word.casefold(), {}) if self.table is not None else {}
        return {name: self._property(word, name, row) for name in self.bounds}

    def fault(self, word: str) -> str | None:
        """Why a word does not fit, None if it does."""
        folded = word.casefold()
        if self.listed is not None and folded not in self.listed:
            return f"is not in {self.origin}"
        for name, value in self.properties(word).items():
            if not within(value, self.bounds[name]):
                if value is None:
                    return f"has no {name} in {self.table.name}" if self.table is not None else f"has no {name}"
                return f"has {name} {value:,g}" if isinstance(value, float) else f"has {name} {value}"
        return None

    def unmet(self, known: Collection[str], split: Callable[[str], Sequence[str]]) -> str | None:
        """What of the list can stand nowhere, as one sentence; None if all of it can.

        Args:
            known: the words that the model knows; split: raw text to words as it does.
        """
        folded = {word.casefold() for word in known}
        if self.listed is None:
            return None
        missing = [self.listed[word] for word in sorted(self.listed.keys() - folded)]
        if not missing:
            return None
        several = [word for word in missing if len(split(word)) > 1]
        parts = [
            f"of the {len(self.listed):,} words of {self.origin} the model knows {len(self.listed) - len(missing):,}"
        ]
        if unknown := [word for word in missing if word not in several]:
            parts.append(f"it does not know {_some(unknown)}")
        if several:
            parts.append(f"{_some(several)} {'are' if len(several) > 1 else 'is'} more than one word to it")
        return f"{'; '.join(parts)}."

    def too_few(self, known: Sequence[str]) -> RecipeError:
        """What to say where none of the words ``known``, which could stand there, fits."""
        folded = {word.casefold(): word for word in known}
        parts = [f"{len(folded):,} words of the model may stand there"]
        if self.listed is not None:
            met = sum(word in folded for word in self.listed)
            parts.append(f"{met:,} of them are among the {len(self.listed):,} of {self.origin}")
        if self.table is not None:
            met = sum(word in folded for word in self.table.rows)
            parts.append(f"{met:,} of them are among the {len(self.table.rows):,} of {self.table.name}")
        for name, bound in self.bounds.items():
            values = [value for word in folded.values() if (value := self.properties(word)[name]) is not None]
            parts.append(f"{sum(within(value, bound) for value in values):,} have {name} {said(bound)}{_span(values)}")
        return RecipeError(
            f"no word is left: {', '.join(parts)}.", where="lexicon", remedy="Widen the bounds or the list."
        )

    def _property(self, word: str, name: str, row: Mapping[str, Value]) -> Value:
        if self.table is not None and name in self.table.columns:
            return row.get(name)
        if name == "letters":
            return letters(word)
        assert self.counts is not None
        return self.counts.per_million(word)


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED:,} more" if len(words) > NAMED else ""
    return ", ".join(map(repr, words[:NAMED])) + more


def _span(values: Sequence[Value]) -> str:
    numbers = [value for value in values if isinstance(value, float)]
    return f" (there are {min(numbers):,g} to {max(numbers):,g})" if numbers else ""


def fitting(
    words: Sequence[str] | None,
    file: str | None,
    table: tuple[str | None, str],
    bounds: Mapping[str, Bound],
    counts: WordCounts | None,
) -> Words:
    """What is asked of words, its files read.

    Args:
        words, file: a list, or where one stands.
        table: where a table stands, and its column of words.
        counts: of the model's training text.

    Raises:
        UserError: a file cannot be read or lacks a column, or the model has no counts for ``frequency``.
    """
    listed: Mapping[str, str] | None = None
    if words is not None:
        listed = {word.strip().casefold(): word.strip() for word in words}
    origin = "the list"
    if file is not None:
        listed, origin = read_list(file), file
    path, column = table
    made = _read(path, column, bounds) if path is not None else None
    if "frequency" in bounds and counts is None and (made is None or "frequency" not in made.columns):
        what = f"the model has no counts of its training text ({FILE}), from which `frequency` is computed."
        raise RecipeError(what, where="lexicon", remedy="Give a `table` with a column `frequency`.")
    return Words(listed, origin, made, bounds, counts)


def _read(path: str, column: str, bounds: Mapping[str, Bound]) -> WordTable:
    """A table with the columns that there are bounds for; what comes along need not be among them."""
    numbers = [name for name, bound in bounds.items() if not isinstance(bound, frozenset)]
    names = [name for name, bound in bounds.items() if isinstance(bound, frozenset)]
    own: Callable[[str], bool] = lambda name: name not in BUILT_IN  # noqa: E731
    columns = read_table(path, column, [], []).columns
    present = [name for name in numbers if own(name) or name in columns]
    return read_table(path, column, present, names)
