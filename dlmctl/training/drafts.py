"""Drafts with readers' verdicts, and what drafts and ordinary texts are asked where a masked model is tuned on them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from dlmctl.annotators.gold import tags_of
from dlmctl.checkpoint.control_weights import find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.classifier import labels_of, load_labels
from dlmctl.control.hints import Ask, load_hints
from dlmctl.control.labels import Labels
from dlmctl.control.registry import find_control
from dlmctl.datasets.dataset import Split, load_splits
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import DataError, ModelError, nearest
from dlmctl.models.hints import Hints
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.training.acceptability import require_both, verdicts_of
from dlmctl.training.counting import require_words_of, text_of
from dlmctl.training.hints import Examples, pattern_requirement
from dlmctl.training.masked import refuse_blocks

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

    asked: Examples
    verdicts: np.ndarray
    odds: np.ndarray
    given: Split


class Asks:
    """What texts are asked in tuning: nothing, the tags of their words, and what a control asks.

    Attributes:
        hints: of the control, as they were learned; None where none is told.
        folder: of the control's weights; None as there.
        tagged: whether the model is told tags.

    Args:
        told: name of a control that has hints for the model.

    Raises:
        ModelError: it has none.
        UserError: there is no such control, or it learns nothing.
    """

    def __init__(self, pretrained: Pretrained, told: str | None) -> None:
        self.pretrained, self.tagged = pretrained, bool(pretrained.masked.config.tags)
        self.hints: Hints | None = None
        self.labels: Labels | None = None
        self.folder: Path | None = None
        self.names: list[str] = []
        if told is None:
            return
        kind = find_control(told)
        learns, model = labels_of(kind), pretrained.model
        self.folder = find_control_folder(pretrained.folder, model, kind.name)
        found = None if self.folder is None or not isinstance(model, MaskedLM) else load_hints(self.folder, model)
        if found is None:
            made = f"`dlmctl train control {kind.name} --model MODEL --data DATA --out RUN`"
            remedy = f"Train them first ({made}), or leave `told` out; weights with a name of their own cannot be told."
            raise ModelError(
                f"has no hints for the control {kind.name!r}.", where=str(pretrained.folder), remedy=remedy
            )
        network, numbers = found
        self.hints, self.names = copy.deepcopy(network), list(numbers)
        self.labels = load_labels(learns, kind, pretrained)

    def copied(self) -> Hints | None:
        """The hints, to be trained."""
        return None if self.hints is None else copy.deepcopy(self.hints).float().requires_grad_(True).train()

    def of_drafts(self, split: Split) -> Examples:
        """Of each draft: nothing, its tags, and all of what the control asks of it."""
        return self._asked(split, whole=True)

    def of_text(self, split: Split, most: int) -> Examples:
        """Of at most so many texts, spread over all: nothing, their tags, and all ways in which the control asks."""
        return self._asked(split, whole=False, most=most)

    def _asked(self, split: Split, *, whole: bool, most: int | None = None) -> Examples:
        chosen = split.spread(len(split) if most is None else most).tolist()
        with Console(stderr=True).status(f"reading what {len(chosen):,} texts can be asked"):
            text = text_of(split, self.pretrained.tokenizer).some(chosen)
            asks = [[Ask([[] for _ in words])] for words in text.sentences]
            if self.tagged:
                for row, tags in zip(asks, tags_of(text.sentences, text.fields), strict=True):
                    row.append(Ask(row[0].features, tags))
            if self.labels is not None:
                for row, more in zip(asks, self.labels.asks(text), strict=True):
                    row += more[:1] if whole else more
            ways = max(map(len, asks))
            asks = [[*row, *row[:1] * (ways - len(row))] for row in asks]
            rows = [split.row(at) for at in chosen]
            return pattern_requirement(rows, asks, self.names, self.pretrained.masked.config.tags)


def splits_for(pretrained: Pretrained, data: Path) -> tuple[Split, Split]:
    """The splits of a data set to train on and to validate on, of texts that a model can read.

    Raises:
        DataError: it is none, or damaged, packed in blocks, without rows, of another vocabulary, or has longer texts.
    """
    train, valid, vocabulary = load_splits(data)
    require_words_of(pretrained, data)
    most = pretrained.masked.config.length
    for split in (train, valid):
        refuse_blocks(split, vocabulary.start_id, data)
        longest = int(split.lengths.max(initial=0))
        if not longest or longest > most:
            what = f"a text of {longest} positions, and the model reads {most}" if longest else "a split without a text"
            raise DataError(f"has {what}.", where=str(data), remedy=f"Prepare it with --length {most}.")
    return train, valid


def drafts_of(
    pretrained: Pretrained, data: Path, label: str, asks: Asks, groups: Sequence[str]
) -> tuple[Drafts, Drafts]:
    """The drafts to train on and to validate on, the verdicts in their field ``label``, and in ``written``, where they
    have one, the numbers of the words that the model wrote, from 0; it wrote all of the others.

    Raises:
        DataError: there is no such field, or no such field of groups, or a verdict is no number from 0 to 1, or all to
            train on are alike; as ``splits_for``.
    """
    splits = splits_for(pretrained, data)
    verdicts = [verdicts_of(split, label) for split in splits]
    require_both(verdicts[0], label, data)
    given = [Split(_given(split, pretrained.tokenizer), split.offsets) for split in splits]
    known = [row for split in splits for row in _groups(split, groups)]
    odds = np.split(log_odds(np.concatenate(verdicts), known), [len(splits[0])])
    train, valid = map(Drafts, map(asks.of_drafts, splits), verdicts, odds, given)
    return train, valid


def log_odds(verdicts: np.ndarray, groups: Sequence[Sequence[Any]]) -> np.ndarray:
    """The log-odds that each draft is accepted, by the verdicts of the others of its group, float32.

    Args:
        groups: of each draft the groups that it belongs to, from coarse to fine. What is known of a group of few is
            mixed with what is known of the wider one, at first with even odds.
    """
    chance = np.full(len(verdicts), 0.5)
    for depth in range(1 + max(map(len, groups), default=0)):
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
    if not fields:
        return [()] * len(split)
    found = []
    for row in split.iter_fields():
        lost = [field for field in fields if field not in row]
        if lost:
            remedy = nearest(lost[0], sorted(row))
            raise DataError(f"the data has no field {lost[0]!r}.", where="groups", remedy=remedy)
        found.append(tuple(str(row[field]) for field in fields))
    return found


def _given(split: Split, tokenizer: Tokenizer) -> np.ndarray:
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
