"""Matched sets: the items of a run, and how they are displayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from dlmctl.errors import readable
from dlmctl.generation.frames import frame_of_rows
from dlmctl.generation.matched_table import columns_of, rows_of
from dlmctl.generation.page.notebook import items_html
from dlmctl.generation.results import MOST_SHOWN, MOST_TEXT, Sample


@dataclass(frozen=True, repr=False)
class Item:
    """A frame with its exchanged words under each condition.

    Attributes:
        index: number of the item; rounds: how many rounds of drawing it took.
        drawn: the condition that its text was drawn under.
        places: the places of the exchanged words, from 0.
        texts: the text of each condition that could be drawn.
        properties: for each condition, the known properties of each exchanged word.
        why: what is wrong with it; empty if every condition holds, no two texts are the same, no other item has the
            same texts, and ``differences`` are within the tolerances.
        differences: the largest difference between its conditions in each property of ``control_for``; None if a value
            is unknown.
    """

    index: int
    drawn: str
    places: tuple[int, ...]
    texts: Mapping[str, Sample]
    properties: Mapping[str, Sequence[Mapping[str, float | str | None]]]
    why: str = ""
    rounds: int = 1
    differences: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.why

    def exchanged(self, condition: str) -> list[str]:
        """The exchanged words of a condition."""
        return [self.texts[condition].words[place] for place in self.places] if condition in self.texts else []

    def __repr__(self) -> str:
        """The text of each condition, and why the item failed, if it did."""
        texts = [f"  {name}: {readable(sample.text, MOST_TEXT)}" for name, sample in self.texts.items()]
        return "\n".join([f"{self.index}: {readable(self.why) or 'passed'}", *texts])

    def _repr_html_(self) -> str:
        return items_html([self], list(self.texts))


@dataclass(frozen=True, repr=False)
class MatchedSets(Sequence[Item]):
    """The items of a run, in order, and the seconds that they took: a sequence whose slices are ``MatchedSets``, too.

    An item has the ``texts`` of its conditions by name, the ``places`` of the exchanged words, and ``passed``, or
    ``why`` it did not. ``control_for`` are the tolerances of the recipe.
    """

    items: list[Item]
    conditions: tuple[str, ...]
    seconds: float
    control_for: Mapping[str, float] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> MatchedSets: ...

    def __getitem__(self, index: int | slice) -> Item | MatchedSets:
        return replace(self, items=self.items[index]) if isinstance(index, slice) else self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def success(self) -> float:
        """The share of items that passed."""
        return sum(item.passed for item in self.items) / max(1, len(self.items))

    @property
    def totals(self) -> str:
        """The number of items, the seconds and the share that passed, in words."""
        items = "1 item" if len(self.items) == 1 else f"{len(self.items)} items"
        return f"{items} in {self.seconds:.1f} s, {self.success:.0%} of them complete"

    def to_dicts(self, *, long: bool = False) -> list[dict[str, Any]]:
        """A row for each item, or in ``long`` tables for each text, with the columns of the table that ``dlmctl
        matched`` writes. A property is a number, or text for an item that exchanges several words."""
        columns = columns_of(self, long=long)
        return [{name: row.get(name) for name in columns} for row in rows_of(self, long=long, as_text=False)]

    def to_pandas(self, *, long: bool = False) -> Any:
        """A ``pandas.DataFrame`` of ``to_dicts``.

        Raises:
            UserError: pandas is not installed.
        """
        return frame_of_rows(self.to_dicts(long=long), columns_of(self, long=long))

    def __repr__(self) -> str:
        """The items, and the totals."""
        return "\n".join([*map(repr, self.items[:MOST_SHOWN]), self._totals_shown()])

    def _repr_html_(self) -> str:
        return items_html(self.items[:MOST_SHOWN], self.conditions, self._totals_shown())

    def _totals_shown(self) -> str:
        hidden = len(self.items) - MOST_SHOWN
        return self.totals + (f"; {hidden} of them not shown" if hidden > 0 else "")
