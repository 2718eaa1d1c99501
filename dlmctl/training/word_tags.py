"""Labels of words, such as parts of speech, as an input of a model in training, read from a field of the data."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlmctl.datasets.dataset import Split
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.errors import DataError, did_you_mean

# A field with more distinct labels than this does not hold classes of words.
MAX_TAGS = 1000


class WordTags:
    """The labels of the words of a data set.

    Attributes:
        names: of the labels, numbered from 1.
        rows: label ids by name of the split, one per position; 0 for START and END.

    Args:
        splits: the rows by name of the split; the labels of ``train`` are the known ones.
        field: the field with a list of labels for each row, one per word.

    Raises:
        DataError: there is no such field, or it does not hold one label per word.
    """

    def __init__(self, splits: dict[str, Split], field: str) -> None:
        seen: dict[str, int] = {}
        flat = {name: _numbers(split, name, field, seen) for name, split in splits.items()}
        self.names = sorted(name for name, number in seen.items() if number in set(np.unique(flat["train"])))
        new_numbers = {name: number for number, name in enumerate(self.names, start=1)}
        # Labels that do not occur in training count as missing.
        renumber = np.array([0, *(new_numbers.get(name, 0) for name in seen)], np.int64)
        self.rows = {name: Split(renumber[flat[name]], split.offsets) for name, split in splits.items()}


def drop_tags(tags: Tensor, share: float) -> Tensor:
    """Labels ``[B, L]`` with random dropout, 0 for a dropped one.

    A ``share`` of the rows keeps labels: half of these keep all, the others each with a probability drawn uniformly
    for the row. So the model learns to write without labels, with all, and with any number of them.
    """
    uniform = torch.rand(3, len(tags), 1, device=tags.device)
    keep_rate = torch.where(uniform[0] < share, torch.where(uniform[1] < 0.5, 1.0, uniform[2]), 0.0)
    return tags.masked_fill(torch.rand(tags.shape, device=tags.device) >= keep_rate, 0)


def _numbers(split: Split, name: str, field: str, seen: dict[str, int]) -> np.ndarray:
    """The labels of all rows end to end, numbered from 1 by first occurrence and recorded in ``seen``."""
    flat, lengths = array("H"), split.lengths
    for row, (record, length) in enumerate(zip(split.iter_fields(), lengths, strict=True)):
        if field not in record:
            raise _no_field(field, record)
        labels = _checked(record[field], f"{field!r} of row {row + 1} of {name}", int(length) - SPECIAL)
        flat.append(0)
        flat.extend(seen.setdefault(label, len(seen) + 1) for label in labels)
        flat.append(0)
        if len(seen) > MAX_TAGS:
            raise DataError(f"the field {field!r} has more than {MAX_TAGS} distinct labels.", where="tags")
    return np.frombuffer(flat, np.uint16)


def _checked(labels: Any, what: str, word_count: int) -> list[str]:
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{what} is not a list of labels, one per word.", where="tags")
    if len(labels) != word_count:
        raise DataError(f"{what} has {len(labels)} labels for {word_count} words.", where="tags")
    return labels


def _no_field(field: str, record: dict[str, Any]) -> DataError:
    remedy = "Prepare the data with labels of words (`dlmctl data prepare --tags`), or leave tags out."
    suggestion = did_you_mean(field, sorted(record)) if record else ""
    return DataError(f"the data has no field {field!r}.", where="tags", remedy=f"{suggestion} {remedy}".strip())
