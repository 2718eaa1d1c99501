"""Select words of a text by their places or by their tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

from dlmctl.annotators.tagging import read_upos, upos_tagger

# Larger than the length of any model.
MOST_PLACE, MOST_PLACES = 1000, 100


class Where(BaseModel):
    """A selection of words, either by tag or by place."""

    model_config = ConfigDict(extra="forbid")

    tag: str | None = Field(default=None, description="a UPOS tag, alternatives as NOUN|VERB", examples=["NOUN"])
    place: StrictInt | list[StrictInt] | None = Field(
        default=None,
        description="a place or several, counted in words from 1, from the end as -1, -2, ...",
        examples=[3],
    )

    @field_validator("tag")
    @classmethod
    def _tag_is_known(cls, tag: str | None) -> str | None:
        return None if tag is None else read_upos([tag])[0]

    @model_validator(mode="after")
    def _tag_or_place(self) -> Self:
        if (self.tag is None) == (self.place is None):
            raise ValueError("words are named by either `tag` or `place`")
        if self.place is not None and not 1 <= len(self.places) <= MOST_PLACES:
            raise ValueError(f"there must be 1 to {MOST_PLACES} places")
        if any(place == 0 or abs(place) > MOST_PLACE for place in self.places):
            raise ValueError("places are counted from 1, or from the end as -1, -2, ...")
        return self

    @property
    def tags(self) -> frozenset[str]:
        """The tags; none if the selection is by place."""
        return frozenset(self.tag.split("|")) if self.tag is not None else frozenset()

    @property
    def places(self) -> tuple[int, ...]:
        """The places as written; none if the selection is by tag."""
        if self.place is None:
            return ()
        return tuple(self.place) if isinstance(self.place, list) else (self.place,)

    @property
    def fewest(self) -> int:
        """The fewest words that a text with these places has."""
        return max(map(abs, self.places), default=0)

    def at(self, count: int) -> list[int]:
        """The sorted places, from 0, in a text of ``count`` words; those beyond its ends are left out."""
        indices = {place - 1 if place > 0 else count + place for place in self.places}
        return sorted(index for index in indices if 0 <= index < count)


def selected_places(selections: Sequence[Where], texts: Sequence[Sequence[str]]) -> list[list[int]]:
    """The places, from 0, of the words selected in each text; tags are those of the bundled tagger."""
    rows_by_tag = [row for row, selection in enumerate(selections) if selection.tag is not None]
    tags: dict[int, list[str]] = {}
    if rows_by_tag:
        tags = dict(zip(rows_by_tag, upos_tagger()([list(texts[row]) for row in rows_by_tag]), strict=True))
    return [
        [place for place, tag in enumerate(tags[row]) if tag in selection.tags]
        if row in tags
        else selection.at(len(texts[row]))
        for row, selection in enumerate(selections)
    ]
