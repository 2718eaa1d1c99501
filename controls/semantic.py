"""Semantic content: the text states that fields have values, such as ``food: Italian`` and ``area: riverside``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from controls.wordings import statement
from dlmctl.control import Check, Control, ControlParams, ControlState, Setting
from dlmctl.fields import Value, value_words
from dlmctl.precision import widened
from dlmctl.training.control import load_classifier, load_labels
from dlmctl.training.field_labels import FieldLabels


class SemanticParams(ControlParams):
    """Fields and their values, as the data that the model was trained on has them, and how they are matched."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"food": "Italian", "area": "riverside"}]})
    __pydantic_extra__: dict[str, Value] = Field(init=False)

    match: Literal["exact", "natural"] = Field(
        "natural", description="what the check accepts: the value word for word, or also other wordings of it"
    )

    @property
    def fields(self) -> dict[str, Value]:
        return self.__pydantic_extra__

    @model_validator(mode="after")
    def _some_field(self) -> SemanticParams:
        if not self.fields:
            raise ValueError("name at least one field and its value, for example food: Italian")
        empty = [name for name, value in self.fields.items() if not value_words(value)]
        if empty:
            raise ValueError(f"the field {empty[0]!r} has no value")
        return self


class Semantic(Control[SemanticParams]):
    """Steers by a noise-aware classifier of every field, checks by the wording of the values (Li et al. 2022, sec. 5).

    The paper's classifier is an autoregressive transformer over [latent; field; value]. A softmax over the known
    values of each field gives the same p(value | latent, field), normalised, in one pass for all fields.
    """

    name = "semantic"
    ragged = True
    # Its energy is one term a field, where others have one for every word; at weight 1 it is outvoted by the model.
    weight = 8.0
    Params = SemanticParams
    Labels = FieldLabels

    def prepare(self, setting: Setting) -> None:
        device = setting.model.embeddings.device
        labels = load_labels(FieldLabels, type(self), setting)
        wanted = torch.zeros(setting.batch, labels.columns)
        for row in range(setting.batch):
            for field, value in self.of(row).fields.items():
                wanted[row, labels.column(field, value)] = 1
        self._wanted = wanted.to(device)
        self._classifier = load_classifier(type(self), setting).to(device)

    def energy(self, state: ControlState) -> Tensor:
        """-log p(field = value given the latent), summed over the fields."""
        log_probs = [widened(logits).log_softmax(-1) for logits in self._classifier(state.x, state.t, state.inside)]
        return -(torch.cat(log_probs, dim=-1) * self._wanted).sum(-1)

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """Share of fields whose value the text states; see ``controls.wordings``."""
        checks = []
        for sample, text in enumerate(words):
            params = self.of(sample)
            natural = params.match == "natural"
            whys, met = [], 0
            for field, value in params.fields.items():
                found = statement(field, value, text, natural=natural)
                met += found is not None
                asked = f"{field} is {value_words(value)}"
                whys.append(f"{asked}: not stated" if found is None else f"{asked}: stated as {found!r}")
            checks.append(Check(met / len(params.fields), met == len(params.fields), "; ".join(whys)))
        return checks

    @classmethod
    def from_target(cls, record: Any) -> SemanticParams:
        """Of a list of words, as ``["price", ":", "cheap"]``, alone or as ``attribute``, or of an object of fields."""
        words = record.get("attribute") if isinstance(record, dict) else record
        if not isinstance(words, list):
            return SemanticParams.model_validate(record)
        field, colon, value = " ".join(words).partition(" : ")
        if not colon:
            raise ValueError("no field, colon and value")
        return SemanticParams.model_validate({field: value})
