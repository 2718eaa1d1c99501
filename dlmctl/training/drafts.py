"""Drafts with readers' verdicts, and what drafts and ordinary texts are asked where a masked model is tuned on them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlmctl.annotators.gold import tags_of
from dlmctl.checkpoint.control_weights import find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.classifier import labels_of, load_labels
from dlmctl.control.hints import Ask, load_hints
from dlmctl.control.labels import Labels
from dlmctl.control.registry import find_control
from dlmctl.datasets.dataset import Split, load_split
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import DataError, ModelError, nearest
from dlmctl.models.hints import Hints
from dlmctl.training.acceptability import verdicts_of
from dlmctl.training.counting import text_of
from dlmctl.training.hints import Asked, asked_of

# The field of a draft with the numbers of the words that the model wrote, where others were given.
WRITTEN = "written"
# How many verdicts of a group what is known of the wider group weighs as much as.
DOUBT = 2.0
# Shares of accepted texts that are taken for none and for all.
NONE, ALL = 0.03, 0.97


class Drafts(NamedTuple):
    """Drafts of a split and what they are asked.

    Attributes:
        verdicts, odds: of each its verdict and the log-odds of such drafts, both ``[N]``.
        given: for every position whether it was given beforehand, so that no verdict blames the model for it.
    """

    asked: Asked
    verdicts: np.ndarray
    odds: np.ndarray
    given: Split


class Asks:
    """What texts are asked in tuning: nothing, the tags of their words, and what a control asks.

    Attributes:
        hints: of the control, as they were learned; None where none is told.

    Args:
        told: name of a control that has hints for the model.

    Raises:
        ModelError: it has none.
    """

    def __init__(self, pretrained: Pretrained, told: str | None) -> None:
        self.pretrained = pretrained
        self.hints: Hints | None = None
        self.labels: Labels | None = None
        self.names: list[str] = []
        if told is None:
            return
        kind = find_control(told)
        folder = find_control_folder(pretrained.folder, pretrained.model, kind.name)
        model = pretrained.model
        found = None if folder is None or not isinstance(model, MaskedLM) else load_hints(folder, model)
        if found is None:
            remedy = f"Train them first (`dlmctl train control {told} --out RUN`), or leave `told` out."
            raise ModelError(f"has no hints for the control {told!r}.", where=str(pretrained.folder), remedy=remedy)
        network, numbers = found
        self.hints, self.names = copy.deepcopy(network), list(numbers)
        self.labels = load_labels(labels_of(kind), kind, pretrained)

    def copied(self) -> Hints | None:
        """The hints, to be trained."""
        return None if self.hints is None else copy.deepcopy(self.hints).float().requires_grad_(True).train()

    def of_drafts(self, split: Split) -> Asked:
        """Of each draft: nothing, its tags, and all of what the control asks of it."""
        return self._asked(split, first=True)

    def of_text(self, split: Split) -> Asked:
        """Of each text: its tags, and all ways in which the control asks."""
        return self._asked(split, first=False)

    def _asked(self, split: Split, *, first: bool) -> Asked:
        text = text_of(split, self.pretrained.tokenizer)
        nothing: list[list[list[str]]] = [[[] for _ in words] for words in text.sentences]
        tags = tags_of(text.sentences, text.fields) if self.pretrained.masked.config.tags else [[] for _ in nothing]
        asks = [[Ask(none, of_words)] for none, of_words in zip(nothing, tags, strict=True)]
        if first:
            asks = [[Ask(none), *row] for none, row in zip(nothing, asks, strict=True)]
        if self.labels is not None:
            for row, more in zip(asks, self.labels.asks(text), strict=True):
                row += more[:1] if first else more
        ways = max(map(len, asks), default=1)
        asks = [[*row, *row[:1] * (ways - len(row))] for row in asks]
        rows = [split.row(at) for at in range(len(split))]
        return asked_of(rows, asks, self.names, self.pretrained.masked.config.tags)


def drafts_of(data: Path, name: str, label: str, asks: Asks, groups: Sequence[str]) -> Drafts:
    """The drafts of a split, the verdicts in its field ``label``, and in ``written``, where they have one, the numbers
    of the words that the model wrote, from 0; it wrote all of the others.

    Raises:
        DataError: there is no such field, or no such field of groups, or a verdict is no number from 0 to 1.
    """
    split = load_split(data, name)
    verdicts = verdicts_of(split, label)
    odds = log_odds(verdicts, _groups(split, groups))
    return Drafts(asks.of_drafts(split), verdicts, odds, Split(_given(split), split.offsets))


def log_odds(verdicts: np.ndarray, groups: Sequence[Sequence[Any]]) -> np.ndarray:
    """The log-odds that each draft is accepted, by the verdicts of the others of its group, float32.

    Args:
        groups: of each draft the groups that it belongs to, from coarse to fine. What is known of a group of few is
            mixed with what is known of the wider one.
    """
    chance = np.full(len(verdicts), verdicts.mean() if len(verdicts) else 0.5)
    for depth in range(1, 1 + len(groups[0]) if len(groups) else 1):
        total: dict[tuple[Any, ...], float] = defaultdict(float)
        count: dict[tuple[Any, ...], int] = defaultdict(int)
        keys = [tuple(row[:depth]) for row in groups]
        for key, verdict in zip(keys, verdicts.tolist(), strict=True):
            total[key] += verdict
            count[key] += 1
        others = np.array([total[key] for key in keys]) - verdicts
        chance = (others + DOUBT * chance) / (np.array([count[key] for key in keys]) - 1 + DOUBT)
    chance = chance.clip(NONE, ALL)
    return np.log(chance / (1 - chance)).astype(np.float32)


def _groups(split: Split, fields: Sequence[str]) -> list[tuple[str, ...]]:
    found = []
    for row in split.iter_fields():
        lost = [field for field in fields if field not in row]
        if lost:
            remedy = nearest(lost[0], sorted(row))
            raise DataError(f"the data has no field {lost[0]!r}.", where="groups", remedy=remedy)
        found.append(tuple(str(row[field]) for field in fields))
    return found


def _given(split: Split) -> np.ndarray:
    """For every position of a split 1 where its word was given beforehand, else 0."""
    given = np.zeros(len(split.ids), np.uint8)
    for number, (row, start, length) in enumerate(
        zip(split.iter_fields(), split.offsets[:-1], split.lengths, strict=True), start=1
    ):
        written = row.get(WRITTEN)
        if written is None:
            continue
        words = int(length) - SPECIAL
        if (
            not isinstance(written, list)
            or not written
            or not all(type(at) is int and 0 <= at < words for at in written)
        ):
            what = f"{WRITTEN!r} of text {number} is no list of numbers of its words, from 0 to {words - 1}."
            raise DataError(what, where=str(split.fields))
        given[start + 1 : start + 1 + words] = 1
        given[start + 1 + np.array(written)] = 0
    return given
