"""Parameters of ``semantic``: the values of fields."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from dlmctl import ControlParams
from dlmctl.text.fields import Value, value_words

MAX_FIELDS = 100


class SemanticParams(ControlParams):
    """Fields and their values, as in the training data of the model, and how they are matched."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"food": "Italian", "area": "riverside"}]})
    __pydantic_extra__: dict[str, Value] = Field(init=False)

    match: Literal["exact", "natural"] = Field(
        default="natural", description="what the check accepts: only the exact value, or also other wordings of it"
    )

    exclusive: bool | None = Field(
        default=None,
        description="whether a text fails if it also states another value of a field; if not given, it does, unless "
        "the match is exact",
    )

    @property
    def excludes(self) -> bool:
        """Whether a text fails if it also states another value."""
        return self.match == "natural" if self.exclusive is None else self.exclusive

    @property
    def fields(self) -> dict[str, Value]:
        return self.__pydantic_extra__

    @model_validator(mode="after")
    def _some_field(self) -> SemanticParams:
        if len(self.fields) > MAX_FIELDS:
            raise ValueError(f"there are {len(self.fields)} fields, but at most {MAX_FIELDS} are allowed")
        if not self.fields:
            raise ValueError("name at least one field and its value, for example food: Italian")
        empty = [name for name, value in self.fields.items() if not value_words(value)]
        if empty:
            raise ValueError(f"the field {empty[0]!r} has no value")
        return self
