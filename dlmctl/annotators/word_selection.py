"""Which words of a text are meant: those at given places, or those with given tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

from dlmctl.annotators.tagging import UPOS_TAGS, upos_tagger
from dlmctl.errors import nearest

# More than any model holds.
MOST_PLACE, MOST_PLACES = 1000, 100


class Where(BaseModel):
    """Words by their tag or by their place; one of the two."""

    model_config = ConfigDict(extra="forbid")

    tag: str | None = Field(default=None, description="a UPOS tag, alternatives as NOUN|VERB", examples=["NOUN"])
    place: StrictInt | list[StrictInt] | None = Field(
        default=None,
        description="a place or several, counted in words from 1, from the end as -1, -2, ...",
        examples=[3],
    )

    @field_validator("tag")
    @classmethod
    def _known(cls, tag: str | None) -> str | None:
        for choice in tag.split("|") if tag is not None else []:
            if choice not in UPOS_TAGS:
                raise ValueError(f"there is no UPOS tag {choice!r}. {nearest(choice, list(UPOS_TAGS))}")
        return tag

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.tag is None) == (self.place is None):
            raise ValueError("words are named by `tag` or by `place`, one of the two")
        if self.place is not None and not 1 <= len(self.places) <= MOST_PLACES:
            raise ValueError(f"there must be 1 to {MOST_PLACES} places")
        if any(place == 0 or abs(place) > MOST_PLACE for place in self.places):
            raise ValueError("places are counted from 1, or from the end as -1, -2, ...")
        return self

    @property
    def tags(self) -> frozenset[str]:
        """The tags, none where places are given."""
        return frozenset(self.tag.split("|")) if self.tag is not None else frozenset()

    @property
    def places(self) -> tuple[int, ...]:
        """The places as written, none where a tag is given."""
        if self.place is None:
            return ()
        return tuple(self.place) if isinstance(self.place, list) else (self.place,)

    @property
    def fewest(self) -> int:
        """The fewest words of a text that has these places."""
        return max(map(abs, self.places), default=0)

    def at(self, count: int) -> list[int]:
        """The places of a text of so many words, from 0 and in order; those beyond its ends are left out."""
        found = {place - 1 if place > 0 else count + place for place in self.places}
        return sorted(place for place in found if 0 <= place < count)


def found_in(where: Sequence[Where], texts: Sequence[Sequence[str]]) -> list[list[int]]:
    """The places, from 0, of the words that are meant in each text; tags are those of the bundled tagger."""
    tagged = [row for row, one in enumerate(where) if one.tag is not None]
    tags = dict(zip(tagged, upos_tagger()([list(texts[row]) for row in tagged]), strict=True)) if tagged else {}
    return [
        [at for at, tag in enumerate(tags[row]) if tag in one.tags] if row in tags else one.at(len(texts[row]))
        for row, one in enumerate(where)
    ]
