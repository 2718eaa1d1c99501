"""Drafts with readers' verdicts, and the examples made of drafts and ordinary texts to tune a masked model."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlmctl.annotators.gold import tags_of
from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.control_weights import find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.classifier import labels_of, load_labels
from dlmctl.control.hints import HintRequest, load_hints
from dlmctl.control.labels import Labels
from dlmctl.control.registry import find_control
from dlmctl.datasets.dataset import Split, load_splits
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import DataError, ModelError, did_you_mean
from dlmctl.models.hints import Hints
from dlmctl.text.terminal import spinning
from dlmctl.text.tokenizer import Tokenizer
from dlmctl.training.acceptability import require_both, verdicts_of
from dlmctl.training.counting import require_words_of, text_of
from dlmctl.training.hints import Examples, encode_examples
from dlmctl.training.masked import refuse_blocks

# The field of a draft with the numbers of the words that the model wrote, if others were given.
WRITTEN = "written"
# The number of verdicts that the estimate of the wider group counts as.
PRIOR_COUNT = 2.0
# Bounds on the estimated share of accepted texts.
MIN_SHARE, MAX_SHARE = 0.03, 0.97


class Drafts(NamedTuple):
    """The drafts of a split as examples.

    Attributes:
        verdicts, log_odds: the verdict of each draft and the log-odds of drafts like it, both ``[N]``.
        is_given: for every position whether it was given beforehand, so that the model is not judged by it.
    """

    examples: Examples
    verdicts: np.ndarray
    log_odds: np.ndarray
    is_given: Split


class ExampleBuilder:
    """Makes tuning examples of texts: with no request, with the tags of their words, and with a control's requests.

    Attributes:
        hints: of the control, as they were trained; None without a control.
        folder: of the control's weights; None without a control.
        takes_tags: whether the model takes tags as an input.

    Args:
        control: name of a control that has hints for the model.

    Raises:
        ModelError: the control has no hints for the model.
        UserError: there is no such control, or it learns nothing.
    """

    def __init__(self, pretrained: Pretrained, control: str | None) -> None:
        self.pretrained, self.takes_tags = pretrained, bool(pretrained.masked.config.tags)
        self.hints: Hints | None = None
        self.labels: Labels | None = None
        self.folder: Path | None = None
        self.feature_names: list[str] = []
        if control is None:
            return
        kind = find_control(control)
        label_kind, model = labels_of(kind), pretrained.model
        self.folder = find_control_folder(pretrained.folder, model, kind.name)
        loaded = None if self.folder is None or not isinstance(model, MaskedLM) else load_hints(self.folder, model)
        if loaded is None:
            command = f"`dlmctl train control {kind.name} --model MODEL --data DATA --out RUN`"
            remedy = f"Train them first ({command}), or leave `told` out; named weights cannot be used here."
            raise ModelError(
                f"has no hints for the control {kind.name!r}.", where=model_name(pretrained.folder), remedy=remedy
            )
        network, feature_ids = loaded
        self.hints, self.feature_names = copy.deepcopy(network), list(feature_ids)
        self.labels = load_labels(label_kind, kind, pretrained)

    def trainable_hints(self) -> Hints | None:
        """A copy of the hints, to be trained."""
        return None if self.hints is None else copy.deepcopy(self.hints).float().requires_grad_(True).train()

    def from_drafts(self, split: Split) -> Examples:
        """Each draft with no request, with its tags, and with the control's full request."""
        return self._build(split, full_request_only=True)

    def from_text(self, split: Split, max_texts: int) -> Examples:
        """At most ``max_texts`` texts, spread over all: with no request, with tags, and with each control request."""
        return self._build(split, full_request_only=False, max_texts=max_texts)

    def _build(self, split: Split, *, full_request_only: bool, max_texts: int | None = None) -> Examples:
        chosen = split.spread(len(split) if max_texts is None else max_texts).tolist()
        with spinning(f"analysing {len(chosen):,} texts"):
            text = text_of(split, self.pretrained.tokenizer).some(chosen)
            requests = [[HintRequest([[] for _ in words])] for words in text.sentences]
            if self.takes_tags:
                for row, tags in zip(requests, tags_of(text.sentences, text.fields), strict=True):
                    row.append(HintRequest(row[0].features, tags))
            if self.labels is not None:
                for row, more in zip(requests, self.labels.asks(text), strict=True):
                    row += more[:1] if full_request_only else more
            variants = max(map(len, requests))
            requests = [[*row, *row[:1] * (variants - len(row))] for row in requests]
            rows = [split.row(row) for row in chosen]
            return encode_examples(rows, requests, self.feature_names, self.pretrained.masked.config.tags)


def splits_for(pretrained: Pretrained, data: Path) -> tuple[Split, Split]:
    """The training and validation splits of a data set, checked to fit the model.

    Raises:
        DataError: ``data`` is not a data set, is damaged, packed in blocks or without rows, or has another vocabulary
            or texts that are too long.
    """
    train, valid, vocabulary = load_splits(data)
    require_words_of(pretrained, data)
    max_length = pretrained.masked.config.length
    for split in (train, valid):
        refuse_blocks(split, vocabulary.start_id, data)
        longest = int(split.lengths.max(initial=0))
        if not longest or longest > max_length:
            fault = f"a text of {longest} positions, but the model reads {max_length}" if longest else "an empty split"
            raise DataError(f"has {fault}.", where=str(data), remedy=f"Prepare it with --length {max_length}.")
    return train, valid


def drafts_of(
    pretrained: Pretrained, data: Path, label: str, builder: ExampleBuilder, groups: Sequence[str]
) -> tuple[Drafts, Drafts]:
    """The drafts to train on and to validate on.

    Their field ``label`` holds the verdict; the optional field ``written`` holds the numbers, from 0, of the words that
    the model wrote. Without it the model wrote all words.

    Raises:
        DataError: a field (``label`` or one of ``groups``) is missing, a verdict is not a number from 0 to 1, or all
            verdicts to train on are equal; also as ``splits_for``.
    """
    splits = splits_for(pretrained, data)
    verdicts = [verdicts_of(split, label) for split in splits]
    require_both(verdicts[0], label, data)
    is_given = [Split(_is_given(split, pretrained.tokenizer), split.offsets) for split in splits]
    group_rows = [row for split in splits for row in _groups(split, groups)]
    odds = np.split(log_odds(np.concatenate(verdicts), group_rows), [len(splits[0])])
    train, valid = map(Drafts, map(builder.from_drafts, splits), verdicts, odds, is_given)
    return train, valid


def log_odds(verdicts: np.ndarray, groups: Sequence[Sequence[Any]]) -> np.ndarray:
    """The log-odds that each draft is accepted, estimated from the other verdicts of its group, float32.

    Args:
        groups: the groups of each draft, from coarse to fine. The estimate of a group is smoothed with that of the
            wider group, and the widest with even odds.
    """
    share = np.full(len(verdicts), 0.5)
    for depth in range(1 + max(map(len, groups), default=0)):
        sums: dict[tuple[Any, ...], float] = defaultdict(float)
        counts: dict[tuple[Any, ...], int] = defaultdict(int)
        keys = [tuple(row[:depth]) for row in groups]
        for key, verdict in zip(keys, verdicts.tolist(), strict=True):
            sums[key] += verdict
            counts[key] += 1
        others = np.array([sums[key] for key in keys]) - verdicts
        share = (others + PRIOR_COUNT * share) / (np.array([counts[key] for key in keys]) - 1 + PRIOR_COUNT)
    share = share.clip(MIN_SHARE, MAX_SHARE)
    return np.log(share / (1 - share)).astype(np.float32)


def _groups(split: Split, fields: Sequence[str]) -> list[tuple[str, ...]]:
    if not fields:
        return [()] * len(split)
    groups = []
    for row in split.iter_fields():
        missing = [field for field in fields if field not in row]
        if missing:
            remedy = did_you_mean(missing[0], sorted(row))
            raise DataError(f"the data has no field {missing[0]!r}.", where="groups", remedy=remedy)
        groups.append(tuple(str(row[field]) for field in fields))
    return groups


def _is_given(split: Split, tokenizer: Tokenizer) -> np.ndarray:
    """1 for every position of a split whose word was given beforehand, else 0."""
    is_given = np.zeros(len(split.ids), np.uint8)
    for number, (row, start, length) in enumerate(
        zip(split.iter_fields(), split.offsets[:-1], split.lengths, strict=True), start=1
    ):
        written = row.get(WRITTEN)
        if written is None:
            continue
        word_count = int(length) - SPECIAL
        if (
            not isinstance(written, list)
            or not written
            or not all(type(at) is int and 0 <= at < word_count for at in written)
        ):
            message = f"{WRITTEN!r} of text {number} is not a list of word numbers from 0 to {word_count - 1}."
            raise DataError(message, where=str(split.fields))
        is_given[start + 1 : start + 1 + word_count] = 1
        is_given[start + 1 + np.array(written)] = 0
    return is_given
