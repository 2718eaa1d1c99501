"""Labels from the fields of a data set: for each field one of its values, or that it is absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.control.labels import LabelledText, Labels
from dlmctl.control.prepared import Energy, Prepared
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.control.word_latents import reads_words, word_latents
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import DataError, RecipeError, did_you_mean
from dlmctl.models.pooled import PooledClassifier
from dlmctl.text.fields import Value, distinct_values, field_key, find_value, value_words
from dlmctl.text.tokenizer import Tokenizer

# A field with more values than this identifies texts rather than describing them.
MAX_VALUES = 500
# The logit of an impossible class, finite so that 0 times it is 0.
NEVER = -1e9


def _unusable_field(label: str, values: Collection[str], usable: list[str], *, is_nested: bool) -> DataError:
    """The error for a field that the user chose but that holds no labels.

    Args:
        is_nested: whether it has lists or objects for values.
    """
    if is_nested and not values:
        what = f"the values of the field {label!r} are lists or objects."
        one_value = "A label is a word, a number or a truth value. Give a text with several labels as several rows."
        return DataError(what, where="--label", remedy=one_value)
    if not values:
        what = f"the data set has no field {label!r} of words, numbers or truth values."
        return DataError(what, where="--label", remedy=did_you_mean(label, usable))
    what = f"the field {label!r} has {_number_of(values)}, but labels need 2 to"
    remedy = f"Fields that have: {', '.join(usable[:20])}." if usable else None
    return DataError(f"{what} {MAX_VALUES}.", where="--label", remedy=remedy)


def _number_of(values: Collection[str]) -> str:
    return f"{len(values):,} value{'s' if len(values) > 1 else ''}"


@dataclass(frozen=True)
class FieldLabels(Labels):
    """The fields of a data set with their values, and a classifier with a softmax for each field.

    Values that differ in case alone are one, since recipes name them in any case. The classes of a field are its values
    in order, then ``absent``. The target of a text is a mapping from some of the fields to values.
    """

    values: dict[str, list[str]]

    takes = ("label",)

    @classmethod
    def fields_of(cls, data: LabelledText) -> Sequence[Mapping[str, Any]]:
        """The fields of each sentence: those of the data, unless a subclass derives others."""
        return data.rows

    @classmethod
    def from_data(cls, data: LabelledText) -> Self:
        """All fields whose values are words, numbers or truth values, or the one field that the user chose.

        Raises:
            DataError: there is no such field.
        """
        counts_by_field: dict[str, Counter[str]] = {}
        for row in cls.fields_of(data):
            for name, value in row.items():
                if isinstance(value, Value) and (words := value_words(value)):
                    counts_by_field.setdefault(name, Counter())[words] += 1
        values_by_field = {name: distinct_values(counts) for name, counts in counts_by_field.items()}
        usable = {name: values for name, values in values_by_field.items() if 1 < len(values) <= MAX_VALUES}
        if data.label is None and usable:
            return cls(usable)
        is_nested = any(not isinstance(row.get(data.label or "", ""), Value) for row in cls.fields_of(data))
        if data.label is None or (data.label not in values_by_field and not usable and not is_nested):
            known = ", ".join(f"{name} ({_number_of(values)})" for name, values in list(values_by_field.items())[:20])
            raise DataError(
                f"the data set has no field of 2 to {MAX_VALUES} values to learn from.",
                remedy=f"Fields that it has: {known}."
                if known
                else "Prepare it from JSON lines, or from another source with fields for each text.",
            )
        if data.label not in usable:
            raise _unusable_field(data.label, values_by_field.get(data.label, ()), list(usable), is_nested=is_nested)
        return cls({data.label: usable[data.label]})

    def to_json(self) -> Any:
        return {"values": self.values}

    @classmethod
    def from_json(cls, saved: Any) -> Self:
        return cls({str(name): [str(value) for value in values] for name, values in saved["values"].items()})

    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        return PooledClassifier(config.embed_dim, config.length, self._sizes)

    def labels(self, data: LabelledText) -> list[list[int]]:
        """The class of every field, for each text."""
        classes = {name: {value.lower(): at for at, value in enumerate(values)} for name, values in self.values.items()}
        return [
            [known.get(value_words(row.get(name, "")).lower(), len(known)) for name, known in classes.items()]
            for row in self.fields_of(data)
        ]

    def classifier_loss(
        self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over the fields, and the share of fields predicted correctly, both ``[B]``."""
        target = torch.tensor(labels, device=x.device)
        losses, correct = [], []
        for at, logits in enumerate(classifier(x, t)):
            losses.append(F.cross_entropy(logits.float(), target[:, at], reduction="none"))
            correct.append((logits.argmax(-1) == target[:, at]).float())
        return torch.stack(losses).sum(0), torch.stack(correct).mean(0)

    def commonest_accuracy(self, labels: Sequence[list[int]]) -> float | None:
        by_field = [Counter(classes) for classes in zip(*labels, strict=True)]
        return sum(max(counts.values()) for counts in by_field) / (len(by_field) * len(labels)) if labels else None

    def by_classifier(self, classifier: nn.Module, batch: BatchContext[Any], wanted: Sequence[Any]) -> Prepared:
        """Guidance by -log p(field = value given the latent), summed over the wanted fields of a text."""
        indices = [(row, self.column(*field)) for row, fields in enumerate(wanted) for field in fields.items()]
        chosen = torch.zeros(len(batch), sum(self._sizes) + 1)
        chosen[torch.tensor(indices).unbind(1)] = -1
        # All fields as rows of one softmax, padded with a column that is never likely.
        columns = torch.full((len(self._sizes), max(self._sizes)), sum(self._sizes))
        for row, field_columns in zip(columns, torch.arange(sum(self._sizes)).split(self._sizes), strict=True):
            row[: len(field_columns)] = field_columns
        chosen, columns = chosen[:, columns].to(batch.device), columns.flatten().to(batch.device)
        never = torch.full((len(batch), 1), NEVER, device=batch.device)

        def energy(state: ControlState, chosen: Tensor, never: Tensor) -> Tensor:
            by_field = classifier(word_latents(state), state.t, state.mask)
            logits = torch.cat([*by_field, never], -1).index_select(1, columns)
            return (logits.view_as(chosen).log_softmax(-1) * chosen).sum((1, 2))

        return Energy(energy, looks=reads_words(batch.vocabulary), asked=(chosen, never))

    @property
    def _sizes(self) -> list[int]:
        """Number of classes of each field: its values, and absent."""
        return [len(values) + 1 for values in self.values.values()]

    def column(self, field: str, value: Value) -> int:
        """Index of the class ``field = value`` among those of all fields, for any spelling of the two in a recipe.

        Raises:
            RecipeError: the data had no such field, or the field never had that value.
        """
        offset, key = 0, field_key(field)
        for name, values in self.values.items():
            if field_key(name) == key:
                return offset + find_value(value, values, f"the field {name!r} is never {{}}.")
            offset += len(values) + 1
        raise RecipeError(f"the training data had no field {field!r}.", remedy=did_you_mean(field, list(self.values)))
