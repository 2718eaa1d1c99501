"""Word labels for records without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dlmctl.datasets.readers import TAGS_FIELD, Record

Annotator = Callable[[Sequence[Sequence[str]]], list[list[str]]]
"""A function from sentences, as lists of words, to a label for each word."""


def with_tags(records: Sequence[Record], annotate: Annotator) -> list[Record]:
    """The records with a label for each of their words; existing labels are kept."""
    untagged = [index for index, record in enumerate(records) if TAGS_FIELD not in (record.fields or {})]
    labels = annotate([records[index].words for index in untagged])
    result = list(records)
    for index, tags in zip(untagged, labels, strict=True):
        result[index] = replace(records[index], fields={**(records[index].fields or {}), TAGS_FIELD: tags})
    return result
