"""Conversion of a data set's fields to labels and sources: words and label numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlmctl.diffusion.model import LabelSettings, SourceSettings
from dlmctl.errors import DataError
from dlmctl.text.fields import Value, field_key, value_words


def select_fields(fields: Sequence[str], record: Mapping[str, Any]) -> dict[str, Value]:
    """A record's values of ``fields``, in the order and spelling of ``fields``; missing and empty ones are left out."""
    by_key = {field_key(name): value for name, value in record.items()}
    values = {name: by_key.get(field_key(name)) for name in fields}
    return {name: value for name, value in values.items() if isinstance(value, Value) and value_words(value)}


def label_values(settings: LabelSettings, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The label of each record as words, empty where it has none."""
    key = field_key(settings.field)
    labels = []
    for record in records:
        value = next((value for name, value in record.items() if field_key(name) == key), None)
        labels.append(value_words(value) if isinstance(value, Value) else "")
    return labels


def label_numbers(known: Sequence[str], values: Sequence[str]) -> list[int]:
    """The index of each value among a model's labels, regardless of case; ``len(known)`` for other values."""
    indices = {name.lower(): index for index, name in enumerate(known)}
    return [indices.get(value.lower(), len(known)) for value in values]


def source_words(fields: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    """A record as words: for each of ``fields`` that it has, the name (as one word, ``area:``) and the value.

    >>> source_words(["name", "area"], {"area": "river side", "name": "Blue Door", "stars": 3})
    ['name:', 'Blue', 'Door', 'area:', 'river', 'side']
    """
    words: list[str] = []
    for name, value in select_fields(fields, record).items():
        words += [f"{name}:", *value_words(value).split()]
    return words


def source_rows(settings: SourceSettings, records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The source of each record as words.

    Raises:
        DataError: a source is too long.
    """
    rows = [source_words(settings.fields, record) for record in records]
    longest = max(map(len, rows), default=0)
    if longest + 2 > settings.length:
        raise DataError(
            f"a source has {longest} words, field names counted; {settings.length - 2} fit.",
            where="model.source.length",
            remedy=f"Set it to {longest + 2} or more.",
        )
    return rows
