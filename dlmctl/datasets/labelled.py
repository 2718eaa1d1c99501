"""Labels of words for texts that came without: each record's field of tags, by whatever labels sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dlmctl.datasets.readers import TAGS_FIELD, Record

Annotator = Callable[[Sequence[Sequence[str]]], list[list[str]]]
"""Sentences, given as words, to one label for each word."""


def tagged(records: Sequence[Record], annotate: Annotator) -> list[Record]:
    """The records with a label for each of their words; those that have labels already keep them."""
    bare = [at for at, record in enumerate(records) if TAGS_FIELD not in (record.fields or {})]
    labels = annotate([records[at].words for at in bare])
    found = list(records)
    for at, own in zip(bare, labels, strict=True):
        found[at] = replace(records[at], fields={**(records[at].fields or {}), TAGS_FIELD: own})
    return found
