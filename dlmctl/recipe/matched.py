"""The recipe of matched sets: the same frame filled under two or more conditions."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from dlmctl.annotators.word_selection import Where
from dlmctl.recipe.recipe import ControlSpec, Recipe, specs_at
from dlmctl.recipe.settings import Quota, Until

MOST_CONDITIONS = 20
# What is a column of its own in the table of items.
COLUMNS = ("item", "passed", "frame", "drawn", "rounds", "why")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


class MatchedRecipe(Recipe):
    """A recipe whose samples are items: each a text for every condition, alike but for the words exchanged.

    ``controls`` hold in every condition.
    """

    conditions: dict[str, list[dict[str, Any]]] = Field(
        min_length=2,
        max_length=MOST_CONDITIONS,
        description="of matched sets: the conditions by name, each with the controls that hold in it beside `controls`",
    )
    exchange: Where = Field(
        description="of matched sets: the words that differ between the conditions, by place or tag; others are kept"
    )

    @model_validator(mode="after")
    def _names_make_columns(self) -> Self:
        for name in self.conditions:
            if not _NAME.fullmatch(name) or name in COLUMNS:
                raise ValueError(
                    f"a condition cannot be called {name[:40]!r}; take letters, figures, - and _, and none of "
                    f"{', '.join(COLUMNS)}"
                )
            if any(name.startswith(f"{other}_") for other in self.conditions):
                raise ValueError(f"the condition {name!r} begins like another one, so their columns could be mixed up")
        return self

    @field_validator("until")
    @classmethod
    def _until_is_of_whole_items(cls, until: Until | None) -> Until | None:
        if until is not None and (until.bounds_fluency or until.repair):
            raise ValueError(
                "of matched sets `satisfied` and `max_rounds` alone say when an item is done; it is drawn again as a "
                "whole, and its texts are chosen by `rank_by`"
            )
        return until

    @field_validator("unique", "quota")
    @classmethod
    def _items_are_counted_by_themselves(cls, value: bool | Quota | None) -> bool | Quota | None:
        if value:
            raise ValueError(
                "of matched sets no item comes twice as it is, and `samples` says how many are drawn, of which those "
                "that fail are drawn again, up to `until.max_rounds` rounds; leave it out"
            )
        return value

    def specs_of(self, condition: str) -> list[ControlSpec]:
        """The entries that hold in a condition, taken apart.

        Raises:
            RecipeError: an entry has not exactly one control.
        """
        return [*self.control_specs(), *specs_at(self.conditions[condition], ("conditions", condition))]

    def spec_sets(self) -> list[list[ControlSpec]]:
        return [self.specs_of(condition) for condition in self.conditions]
