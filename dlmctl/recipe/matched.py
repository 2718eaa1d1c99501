"""The recipe of matched sets: one frame, filled under two or more conditions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from dlmctl.annotators.word_selection import Where
from dlmctl.errors import did_you_mean
from dlmctl.recipe.recipe import ControlSpec, Recipe, specs_at
from dlmctl.recipe.settings import Quota, Until

MOST_CONDITIONS = 20
# Columns of the table of items, so names that no condition may have.
COLUMNS = ("item", "passed", "frame", "drawn", "rounds", "why", "difference")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


class MatchedRecipe(Recipe):
    """A recipe whose samples are items: one text per condition, identical except for the exchanged words.

    ``controls`` apply in every condition. No two items have the same texts; with ``unique``, no two have an exchanged
    word in common.
    """

    conditions: dict[str, list[dict[str, Any]]] = Field(
        min_length=2,
        max_length=MOST_CONDITIONS,
        description="for matched sets: the conditions by name, each with the controls that it adds to `controls`",
    )
    exchange: Where = Field(
        description="for matched sets: the words that differ between conditions, by place or tag; others are kept"
    )

    control_for: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]] = Field(
        default_factory=dict,
        description="for matched sets: the properties of exchanged words in which the conditions of an item may differ "
        "by so much at most, such as `{letters: 1, zipf: 0.2}`",
    )

    drawn: str | None = Field(
        default=None,
        description="for matched sets: the condition that every item's text is drawn under, before the words are "
        "exchanged; if not given, each condition in turn",
    )

    @model_validator(mode="after")
    def _drawn_is_a_condition(self) -> Self:
        if self.drawn is not None and self.drawn not in self.conditions:
            raise ValueError(
                f"`drawn` is no condition: {self.drawn[:40]!r}. {did_you_mean(self.drawn, list(self.conditions))}"
            )
        return self

    @model_validator(mode="after")
    def _names_are_valid_columns(self) -> Self:
        for name in self.conditions:
            if not _NAME.fullmatch(name) or name in COLUMNS:
                raise ValueError(
                    f"a condition cannot be called {name[:40]!r}; use letters, digits, - and _, and none of "
                    f"{', '.join(COLUMNS)}"
                )
            if any(name.startswith(f"{other}_") for other in (*self.conditions, "difference")):
                raise ValueError(f"the condition {name!r} begins like other columns, so they could be mixed up")
        return self

    @field_validator("until")
    @classmethod
    def _until_applies_to_items(cls, until: Until | None) -> Until | None:
        if until is not None and (until.bounds_fluency or until.repair):
            raise ValueError(
                "for matched sets only `satisfied` and `max_rounds` decide when an item is done; it is redrawn as a "
                "whole, and its texts are chosen by `rank_by`"
            )
        return until

    @field_validator("quota")
    @classmethod
    def _not_for_matched_sets(cls, quota: Quota | None) -> Quota | None:
        if quota is not None:
            raise ValueError(
                "`samples` says how many items are drawn, `until.max_rounds` how often those that fail; leave it out"
            )
        return quota

    def specs_of(self, condition: str) -> list[ControlSpec]:
        """The parsed entries that apply in a condition.

        Raises:
            RecipeError: an entry does not have exactly one control.
        """
        return [*self.control_specs(), *specs_at(self.conditions[condition], ("conditions", condition))]

    def spec_sets(self) -> list[list[ControlSpec]]:
        return [self.specs_of(condition) for condition in self.conditions]
