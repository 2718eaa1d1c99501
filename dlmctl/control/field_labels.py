"""Labels that come from the fields of a data set: for each field one of its values, or that it is absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.control.classifier import Labels
from dlmctl.diffusion.model import ModelConfig
from dlmctl.errors import DataError, RecipeError, nearest
from dlmctl.models.pooled import PooledClassifier
from dlmctl.text.fields import Value, field_key, nearest_value, value_words
from dlmctl.text.tokenizer import Tokenizer

# A field with more values than this identifies texts rather than describing them.
MAX_VALUES = 500


@dataclass(frozen=True)
class FieldLabels(Labels):
    """The fields of a data set with their values, and a classifier with a softmax for each field.

    Classes of a field are its values in order, then ``absent``. See ``dlmctl.control.classifier.Labels``.
    """

    values: dict[str, list[str]]

    @classmethod
    def from_data(
        cls, sentences: list[list[str]], fields: list[dict[str, Any]] | None, label: str | None
    ) -> FieldLabels:
        """Every field whose values are words, numbers or truth values, or the one field ``label`` only.

        Raises:
            DataError: there is no such field.
        """
        found: dict[str, set[str]] = {}
        for row in fields or []:
            for name, value in row.items():
                if isinstance(value, Value) and (words := value_words(value)):
                    found.setdefault(name, set()).add(words)
        usable = {name: sorted(values) for name, values in found.items() if 1 < len(values) <= MAX_VALUES}
        if not usable:
            raise DataError(
                f"the data set has no field of 2 to {MAX_VALUES} values to learn from.",
                remedy="Prepare it from JSON lines, or from another source that says something of each text.",
            )
        if label is None:
            return cls(usable)
        if label not in usable:
            raise DataError(
                f"the data set has no field {label!r} of 2 to {MAX_VALUES} values.",
                where="--label",
                remedy=nearest(label, list(usable)),
            )
        return cls({label: usable[label]})

    def to_json(self) -> Any:
        return {"values": self.values}

    @classmethod
    def from_json(cls, saved: Any) -> FieldLabels:
        return cls({str(name): [str(value) for value in values] for name, values in saved["values"].items()})

    def build_classifier(self, config: ModelConfig, vocabulary: Tokenizer) -> nn.Module:
        return PooledClassifier(config.embed_dim, config.length, [len(values) + 1 for values in self.values.values()])

    def labels(self, sentences: list[list[str]], fields: list[dict[str, Any]] | None) -> list[list[int]]:
        """For each text the class of every field."""
        classes = {name: {value: at for at, value in enumerate(values)} for name, values in self.values.items()}
        return [
            [known.get(value_words(row.get(name, "")), len(known)) for name, known in classes.items()]
            for row in (fields if fields is not None else [{}] * len(sentences))
        ]

    def classifier_loss(
        self, classifier: nn.Module, x: Tensor, t: Tensor, labels: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over the fields, and the share of fields told right, both ``[B]``."""
        target = torch.tensor(labels, device=x.device)
        losses, right = [], []
        for at, logits in enumerate(classifier(x, t)):
            losses.append(F.cross_entropy(logits.float(), target[:, at], reduction="none"))
            right.append((logits.argmax(-1) == target[:, at]).float())
        return torch.stack(losses).sum(0), torch.stack(right).mean(0)

    @property
    def columns(self) -> int:
        """How many classes all fields have together."""
        return sum(len(values) + 1 for values in self.values.values())

    def column(self, field: str, value: Value) -> int:
        """Where the class of ``field = value`` stands among those of all fields, however a recipe spells the two.

        Raises:
            RecipeError: the data had no such field, or the field never that value.
        """
        before, key, words = 0, field_key(field), value_words(value)
        for name, values in self.values.items():
            if field_key(name) == key:
                for at, known in enumerate(values):
                    if known.lower() == words.lower():
                        return before + at
                raise RecipeError(f"the field {name!r} is never {words!r}.", remedy=nearest_value(words, values))
            before += len(values) + 1
        raise RecipeError(f"the training data had no field {field!r}.", remedy=nearest(field, list(self.values)))
