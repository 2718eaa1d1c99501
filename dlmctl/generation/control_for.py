"""``control_for`` of matched sets: how far the words exchanged in an item may differ in properties of words.

The words of one condition limit those of the next: a place may only have words within the tolerances of all words that
are there already, and for which the conditions still to come have such words, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlmctl.annotators.word_selection import MOST_PLACE
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.automata import alphabet_of
from dlmctl.control.base import Composite, Control
from dlmctl.control.properties import Exchanged, faults_of, merged_properties, properties_of
from dlmctl.control.whole_words import needs_words
from dlmctl.errors import did_you_mean
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import Misplaced
from dlmctl.text.word_counts import load_counts
from dlmctl.text.word_properties import BUILT_IN, COUNTED, built_in_property

# Differences of decimal numbers are rounded in binary.
ROUNDING = 1e-9
# Properties that every table of matched sets shows, if they are known; the others only if there is a tolerance.
SHOWN = ("letters", "frequency")
# A length of texts whose places from the end are none of those from the beginning.
LONG = 3 * MOST_PLACE

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Properties = Mapping[str, float | str | None]


class Place(NamedTuple):
    """A place of a text, from 0, and the number of words of the text."""

    at: int
    length: int


class ControlFor:
    """The properties of exchanged words, and the tolerances of a recipe.

    Args:
        controls: the loaded controls of each condition.

    Raises:
        ModelError: there are tolerances, and the model writes pieces of words.
    """

    def __init__(
        self, recipe: MatchedRecipe, controls: Mapping[str, Control[Any] | None], pretrained: Pretrained
    ) -> None:
        self.tolerances, self.exchange, self.controls = recipe.control_for, recipe.exchange, controls
        self.limits = np.array(list(self.tolerances.values())) + ROUNDING
        self.counts = load_counts(pretrained.folder)
        self.built_in = [name for name in BUILT_IN if self.counts is not None or name not in COUNTED]
        self.words: list[str] = []
        self.chooses = bool(self.tolerances) or recipe.unique
        if self.chooses:
            needs_words(pretrained, f"what `{'control_for' if self.tolerances else 'unique'}` compares")
            self.words = [word for word in alphabet_of(pretrained.tokenizer).words if word is not None]
        self.rows = {word: row for row, word in enumerate(self.words)}
        self._values: dict[object, Floats] = {}
        self._eligible: dict[object, Bools] = {}
        self._frames: dict[object, frozenset[str]] = {}
        self._free = np.ones(len(self.words), bool)

    def take(self, words: Iterable[str]) -> None:
        """Leave these words, in any case, out of all further choices."""
        taken = {word.casefold() for word in words}
        self._free &= np.array([word.casefold() not in taken for word in self.words], bool)
        self._frames.clear()

    def properties(self, index: int, word: str) -> dict[str, float | str | None]:
        """The known properties of a word in an item, rounded as they are shown."""
        names = [name for name in self.built_in if name in SHOWN or name in self.tolerances]
        shown = {name: built_in_property(word, name, self.counts) for name in names}
        counted = {name: built_in_property(word, name, self.counts) for name in self.built_in if name in COUNTED}
        by_condition = (properties_of(control, index, word) for control in self.controls.values())
        properties = merged_properties([shown, *by_condition])
        for name, value in counted.items():
            if isinstance(value, float) and properties.get(name) == value:  # unless a user's table replaced it
                properties[name] = round(value, 2)
        return properties

    def differences(self, properties: Mapping[str, Sequence[Properties]]) -> dict[str, float | None]:
        """The largest difference between two conditions in each controlled property, at any place; None if a value is
        unknown, or for names that differ.

        Args:
            properties: those of each exchanged word, by condition.
        """
        differences: dict[str, float | None] = {}
        for name in self.tolerances:
            pairs = [
                _difference(first.get(name), second.get(name))
                for words in zip(*properties.values(), strict=True)
                for first, second in combinations(words, 2)
            ]
            known = [pair for pair in pairs if pair is not None]
            differences[name] = max(known) if known and len(known) == len(pairs) else None
        return differences

    def faults(self, differences: Mapping[str, float | None]) -> list[str]:
        """Which tolerances an item exceeds."""
        faults = []
        for name, tolerance in self.tolerances.items():
            difference = differences[name]
            if difference is None:
                faults.append(f"control_for: {name} differs or is unknown")
            elif difference > tolerance + ROUNDING:
                faults.append(f"control_for: {name} differs by {difference:g}, more than {tolerance:g}")
        return faults

    def frames(self, condition: str, indices: Sequence[int]) -> dict[int, dict[int, frozenset[str]]]:
        """The words by place that an item's first text may have, so that every other condition has words within the
        tolerances; only for places where there are any. If words are exchanged by tag, their places are not known yet,
        and there are none.
        """
        frames: dict[int, dict[int, frozenset[str]]] = {}
        for index in indices:
            frames[index] = {}
            for place in self.exchange.places:
                key = (self._params(index), condition, place)
                if key not in self._frames:
                    self._frames[key] = self.choices(index, condition, _far(place), {})
                if self._frames[key]:
                    frames[index][place] = self._frames[key]
        return frames

    def choices(self, index: int, condition: str, place: Place, beside: Mapping[str, str]) -> frozenset[str]:
        """The words that a condition may have at a place, so that all conditions can be within the tolerances.

        Args:
            beside: the words of other conditions at that place, by condition.
        """
        fits = self._within(index, condition, place, beside.values())
        values = self._values_of(index)
        for other in self.controls:
            if other != condition and other not in beside:
                partners = self._within(index, other, place, beside.values())
                fits &= _near_any(values, fits, values[partners], self.limits)
        return frozenset(self.words[row] for row in fits.nonzero()[0])

    def require_possible(self, items: Iterable[int]) -> None:
        """Check that in one of these items, all there are to tell apart, every two conditions have words within the
        tolerances.

        Raises:
            Misplaced: no item can be complete, or a property is unknown or has names.
        """
        fault: str | None = None
        for index in items if self.tolerances else ():
            fault = self._fault(index)
            if fault is None:
                return
        if fault is not None:
            remedy = "Widen the tolerances, or the bounds of the conditions."
            raise Misplaced(("control_for",), f"control_for: no item can be within the tolerances: {fault}.", remedy)

    def _fault(self, index: int) -> str | None:
        """Why two conditions of an item have no words within the tolerances at some place; None if all have."""
        values = self._values_of(index)
        for place in map(_far, self.exchange.places or (1,)):
            for pair in combinations(self.controls, 2):
                first, second = (values[self._within(index, name, place)] for name in pair)
                if not len(first) or not len(second):
                    return f"{pair[len(first) > 0]!r} has no word whose {', '.join(self.tolerances)} are known"
                if _near_any(first, np.ones(len(first), bool), second, self.limits).any():
                    continue
                gaps = [
                    f"differ by {gap:,.4g} or more in {name}" if tolerance else f"share no {name}"
                    for at, (name, tolerance) in enumerate(self.tolerances.items())
                    if (gap := _least_difference(first[:, at], second[:, at])) > self.limits[at]
                ]
                reasons = " and ".join(gaps) or "meet each tolerance, but no two words meet all"
                return f"the {len(first):,} words of {pair[0]!r} and the {len(second):,} of {pair[1]!r} {reasons}"
        return None

    def _within(self, index: int, condition: str, place: Place, beside: Iterable[str] = ()) -> Bools:
        """Which words ``[V]`` have all properties, comply with a condition at a place as far as its controls judge
        single words, and are within the tolerances of the words ``beside``."""
        place = place if self.exchange.tag is None else Place(MOST_PLACE, LONG)  # one that no control names
        key = (self._params(index), condition, place)
        values = self._values_of(index)
        if key not in self._eligible:
            known: Bools = np.asarray(~np.isnan(values).any(1))
            for row in known.nonzero()[0]:
                exchanged = Exchanged(self.words[row], *place, self.exchange.tags)
                known[row] = not faults_of(self.controls[condition], index, exchanged)
            self._eligible[key] = known
        within = self._eligible[key] & self._free
        for word in beside:
            near = np.zeros(len(within), bool)
            if word in self.rows:
                near = _near(values, values[self.rows[word]], self.limits)
            within &= near
        return within

    def _values_of(self, index: int) -> Floats:
        """The controlled properties ``[V, P]`` of the words in an item: numbers, NaN if unknown, and the numbers of
        names."""
        key = self._params(index)
        if key not in self._values:
            properties = [self.properties(index, word) for word in self.words] if self.tolerances else []
            no_values = np.empty((len(self.words), 0))
            self._values[key] = np.column_stack(
                [no_values, *(self._column(name, properties) for name in self.tolerances)]
            )
        return self._values[key]

    def _column(self, name: str, properties: Sequence[Properties]) -> Floats:
        if not any(name in row for row in properties):
            known = dict.fromkeys([*properties[0], *self.built_in])
            remedy = f"{did_you_mean(name, list(known))} Columns of a `table` are known if a `lexicon` bounds them."
            raise Misplaced(("control_for", name), f"control_for: nothing knows the property {name!r}.", remedy)
        values = [row.get(name) for row in properties]
        names = {value for value in values if isinstance(value, str)}
        if names and self.tolerances[name]:
            message = f"control_for: {name!r} has names, such as {min(names)!r}, which can only be the same."
            raise Misplaced(("control_for", name), message, f"Write `{name}: 0`.")
        numbers: dict[object, float] = {value: number for number, value in enumerate(sorted(names))}
        return np.array([np.nan if value is None else numbers.get(value, value) for value in values], float)

    def _params(self, index: int) -> tuple[str, ...]:
        """What the words of an item depend on."""
        controls = [control for control in self.controls.values() if control is not None]
        return tuple(params for control in controls for params in _dealt(control, index))


def _dealt(control: Control[Any], index: int) -> Iterator[str]:
    if isinstance(control, Composite):
        for part in control.parts:
            yield from _dealt(part, index)
    else:
        yield control.dealt(index).model_dump_json()


def _far(place: int) -> Place:
    """A place of a recipe in a text so long that it is no other place, too."""
    return Place(place - 1 if place > 0 else LONG + place, LONG)


def _difference(first: float | str | None, second: float | str | None) -> float | None:
    if isinstance(first, str) or isinstance(second, str):
        return 0.0 if first == second else None
    return None if first is None or second is None else round(abs(first - second), 9)


def _near(values: Floats, value: Floats, limits: Floats) -> Bools:
    return np.asarray((np.abs(values - value) <= limits).all(-1))


def _near_any(values: Floats, rows: Bools, others: Floats, limits: Floats) -> Bools:
    """Which of the ``rows`` of ``values [V, P]`` are within the limits of one of the ``others [N, P]``."""
    others = np.unique(others, axis=0)
    distinct, inverse = np.unique(values[rows], axis=0, return_inverse=True)
    near = np.zeros(len(values), bool)
    near[rows] = np.array([_near(others, value, limits).any() for value in distinct], bool)[inverse.reshape(-1)]
    return near


def _least_difference(first: Floats, second: Floats) -> float:
    ordered = np.unique(second)
    after = np.searchsorted(ordered, first).clip(0, len(ordered) - 1)
    nearest = np.minimum(np.abs(ordered[after] - first), np.abs(ordered[(after - 1).clip(0)] - first))
    return float(nearest.min())
