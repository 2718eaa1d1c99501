"""Labels of words, such as parts of speech, as an input of a model in training: read from a field of the data."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlmctl.datasets.dataset import Split
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.errors import DataError, nearest

# A field with more different labels than this says something other than the kinds of words.
MAX_TAGS = 1000


class WordTags:
    """The labels of the words of a data set.

    Attributes:
        names: of the labels, from number 1.
        rows: their numbers by the name of the split, in the place of the words; 0 for START and END.

    Args:
        splits: the rows by the name of their split, ``train`` among them: its labels are those that there are.
        field: the field that holds a list of labels for each row, one for each word.

    Raises:
        DataError: there is no such field, or it does not hold one label for each word.
    """

    def __init__(self, splits: dict[str, Split], field: str) -> None:
        seen: dict[str, int] = {}
        flat = {name: _numbers(split, name, field, seen) for name, split in splits.items()}
        self.names = sorted(name for name, number in seen.items() if number in set(np.unique(flat["train"])))
        place = {name: number for number, name in enumerate(self.names, start=1)}
        # What training did not see is as if it were not given.
        renumber = np.array([0, *(place.get(name, 0) for name in seen)], np.int64)
        self.rows = {name: Split(renumber[flat[name]], split.offsets) for name, split in splits.items()}


def given(tags: Tensor, share: float) -> Tensor:
    """Labels ``[B, L]`` as the model receives them in training, 0 where one is held back.

    A ``share`` of the rows has labels: half of these all of them, the others each with a probability that is drawn for
    the row, uniformly. So the model learns to write without labels, with all, and with any number of them.
    """
    drawn = torch.rand(3, len(tags), 1, device=tags.device)
    rate = torch.where(drawn[0] < share, torch.where(drawn[1] < 0.5, 1.0, drawn[2]), 0.0)
    return tags.masked_fill(torch.rand(tags.shape, device=tags.device) >= rate, 0)


def _numbers(split: Split, name: str, field: str, seen: dict[str, int]) -> np.ndarray:
    """The labels of all rows end to end, numbered from 1 in the order in which they are ``seen``."""
    flat, lengths = array("H"), split.lengths
    for row, (record, length) in enumerate(zip(split.iter_fields(), lengths, strict=True)):
        if field not in record:
            raise _no_field(field, record)
        labels = _checked(record[field], f"{field!r} of row {row + 1} of {name}", int(length) - SPECIAL)
        flat.append(0)
        flat.extend(seen.setdefault(label, len(seen) + 1) for label in labels)
        flat.append(0)
        if len(seen) > MAX_TAGS:
            raise DataError(f"the field {field!r} has more than {MAX_TAGS} different labels.", where="tags")
    return np.frombuffer(flat, np.uint16)


def _checked(labels: Any, what: str, words: int) -> list[str]:
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{what} is no list of labels, one for each word.", where="tags")
    if len(labels) != words:
        raise DataError(f"{what} has {len(labels)} labels for {words} words.", where="tags")
    return labels


def _no_field(field: str, record: dict[str, Any]) -> DataError:
    remedy = "Prepare the data with labels of words (`dlmctl data prepare --tags`), or leave tags out."
    close = nearest(field, sorted(record)) if record else ""
    return DataError(f"the data has no field {field!r}.", where="tags", remedy=f"{close} {remedy}".strip())
