"""What a recipe says of the values of fields."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from dlmctl import ControlParams
from dlmctl.text.fields import Value, value_words

MOST_FIELDS = 100


class SemanticParams(ControlParams):
    """Fields and their values, as the data that the model was trained on has them, and how they are matched."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"food": "Italian", "area": "riverside"}]})
    __pydantic_extra__: dict[str, Value] = Field(init=False)

    match: Literal["exact", "natural"] = Field(
        default="natural", description="what the check accepts: the value word for word, or also other wordings of it"
    )

    exclusive: bool | None = Field(
        default=None,
        description="whether a text fails that states another value of a field too; if not given, it does, unless the "
        "match is exact",
    )

    @property
    def excludes(self) -> bool:
        """Whether a text fails that states another value as well."""
        return self.match == "natural" if self.exclusive is None else self.exclusive

    @property
    def fields(self) -> dict[str, Value]:
        return self.__pydantic_extra__

    @model_validator(mode="after")
    def _some_field(self) -> SemanticParams:
        if len(self.fields) > MOST_FIELDS:
            raise ValueError(f"there are {len(self.fields)} fields, and at most {MOST_FIELDS} can be asked for")
        if not self.fields:
            raise ValueError("name at least one field and its value, for example food: Italian")
        empty = [name for name, value in self.fields.items() if not value_words(value)]
        if empty:
            raise ValueError(f"the field {empty[0]!r} has no value")
        return self
