"""Labels and sources of a prepared data set, row by row, for models conditioned on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlmctl.control.field_labels import MAX_VALUES
from dlmctl.datasets.conditions import label_numbers, label_values, select_fields, source_rows
from dlmctl.datasets.dataset import Split, padded_batch
from dlmctl.diffusion.model import LabelSettings, ModelSettings, SourceSettings
from dlmctl.errors import DataError, did_you_mean
from dlmctl.models.conditioner import PAD
from dlmctl.sampling.prompted import Prompt
from dlmctl.text.fields import Value, distinct_values, field_key
from dlmctl.text.tokenizer import WordTokenizer

Records = Sequence[dict[str, Any]]


class Prompts:
    """The label and source of each row of a training and a validation split.

    Attributes:
        labels: names of the labels; source: the settings with all fields listed; closed: the fields with a small set of
            values; tokenizer: of the sources. Each is empty or None if the model does not use it.

    Raises:
        DataError: the data has no such field, or a source is too long.
    """

    def __init__(self, settings: ModelSettings, train: Split, valid: Split) -> None:
        records = {"train": train.read_fields(), "valid": valid.read_fields()}
        self._valid_rows = len(valid)
        self.labels: list[str] = []
        self.source: SourceSettings | None = None
        self.closed: list[str] = []
        self.tokenizer: WordTokenizer | None = None
        self._numbers: dict[str, Tensor] = {}
        self._sources: dict[str, Split] = {}
        if settings.label is not None:
            values = {split: label_values(settings.label, rows) for split, rows in records.items()}
            self.labels = _labels(settings.label, values["train"], records["train"])
            self._numbers = {split: torch.tensor(label_numbers(self.labels, rows)) for split, rows in values.items()}
        if settings.source is not None:
            self.source = _with_fields(settings.source, records["train"])
            self.closed = [name for name in self.source.fields if _is_closed(name, records["train"])]
            words = {split: source_rows(self.source, rows) for split, rows in records.items()}
            self.tokenizer = WordTokenizer.from_corpus(words["train"], self.source.min_count)
            self._sources = {split: _joined(map(self.tokenizer.encode, rows)) for split, rows in words.items()}

    def of(self, split: str, rows: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        """Label ids ``[B]`` and padded sources ``[B, S]`` of some rows."""
        labels = self._numbers[split][torch.from_numpy(rows)] if self.labels else None
        if self.source is None:
            return labels, None
        sources = self._sources[split]
        longest = int((sources.offsets[rows + 1] - sources.offsets[rows]).max())
        return labels, torch.from_numpy(padded_batch(sources, rows, longest, PAD))

    def examples(self, count: int) -> Prompt:
        """The labels and sources of ``count`` evenly spaced validation rows."""
        rows = np.linspace(0, self._valid_rows - 1, count).astype(int)
        labels = self._numbers["valid"][torch.from_numpy(rows)].tolist() if self.labels else []
        sources = [self._sources["valid"].row(row).tolist() for row in rows] if self.source is not None else []
        return Prompt(labels, sources)


def _joined(rows: Iterable[list[int]]) -> Split:
    """Rows of ids, end to end."""
    id_rows = list(rows)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in id_rows])]).astype(np.int64)
    return Split(np.fromiter(chain.from_iterable(id_rows), np.int64, offsets[-1]), offsets)


def _labels(settings: LabelSettings, values: Sequence[str], rows: Records) -> list[str]:
    names = distinct_values(Counter(filter(None, values)))
    if not names:
        raise _no_field("label.field", settings.field, rows)
    if len(names) > MAX_VALUES:
        raise DataError(
            f"the field {settings.field!r} has {len(names)} values; a label has at most {MAX_VALUES}.",
            where="model.label.field",
            remedy="Take a field with few values, or make it the source.",
        )
    return names


def _is_closed(name: str, rows: Records) -> bool:
    """Whether a field takes few distinct values, rather than being free text."""
    values = [picked[name] for row in rows if (picked := select_fields([name], row))]
    distinct = len(set(values))
    return distinct <= MAX_VALUES and 2 * distinct <= len(values)


def _with_fields(settings: SourceSettings, rows: Records) -> SourceSettings:
    known = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, Value)))
    keys = {field_key(name) for name in known}
    for name in settings.fields:
        if field_key(name) not in keys:
            raise _no_field("source.fields", name, rows)
    return settings.model_copy(update={"fields": settings.fields or known})


def _no_field(setting: str, name: str, rows: Records) -> DataError:
    known = sorted({name for row in rows for name in row})
    return DataError(f"the data has no field {name!r}.", where=f"model.{setting}", remedy=did_you_mean(name, known))
