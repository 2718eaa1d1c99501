"""Evidence of a control counted from text: what takes the place of a classifier where a model has no latents.

It takes a minute and no steps: how often each word was seen in each of the control's classes.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from dlmctl.checkpoint.control_weights import (
    EMBEDDINGS,
    check_found,
    embedding_digest,
    new_control_folder,
    save_control_files,
    tell_of_weights,
)
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.weights import write_shards
from dlmctl.control.base import Control
from dlmctl.control.classifier import LABELS_FILE, labels_of
from dlmctl.control.evidence.beside import Counted, save_evidence
from dlmctl.control.evidence.table import CountTable
from dlmctl.control.hints import CONFIG, HINTS
from dlmctl.control.labels import LabelledText, Labels, require_heeded
from dlmctl.control.whole_words import needs_words
from dlmctl.datasets.dataset import Split, load_split, load_vocabulary
from dlmctl.datasets.staging import check_writable
from dlmctl.errors import DataError
from dlmctl.text.tokenizer import UNK, Tokenizer, WordTokenizer, same_words
from dlmctl.training.hints import HintRun, Told, train_hints


def require_words_of(pretrained: Pretrained, data: Path) -> None:
    """Refuse a data set of another vocabulary than a model's.

    Raises:
        DataError: it is one.
    """
    if not same_words(load_vocabulary(data), pretrained.tokenizer):
        raise DataError(
            "was prepared with another vocabulary than the model's.",
            where=str(data),
            remedy="Prepare it again with the model's vocabulary (`dlmctl data prepare --vocabulary MODEL`).",
        )


def text_of(split: Split, tokenizer: Tokenizer, label: str | None = None, judge: str | None = None) -> LabelledText:
    """The sentences of a split as words, with what the data says beside each, and what the user chose."""
    sentences = [tokenizer.words(split.row(row).tolist()) for row in range(len(split))]
    return LabelledText(sentences, split.read_fields() if split.fields else None, label, judge)


def can_count(kind: type[Labels], tokenizer: Tokenizer) -> bool:
    """Whether there is anything to count for these labels, and whole words to count it of; else a classifier learns."""
    return kind.counts is not None and isinstance(tokenizer, WordTokenizer)


def count_control(
    control: type[Control[Any]],
    pretrained: Pretrained,
    data: Path,
    *,
    label: str | None = None,
    name: str | None = None,
    judge: str | None = None,
    sentences: int | None = None,
    hints: HintRun | None = None,
) -> Path:
    """Count a control's evidence in the training split of a prepared data set, and save it beside the model.

    Args:
        hints: how to train what the model is told besides (``training.hints``); it is not if None.
        sentences: at most so many rows, spread over all; without those that have an unknown word, which a parser would
            take for a name, unless the data itself has the labels.

    Returns:
        The folder of the tables and their card.

    Raises:
        UserError: the model brings evidence of its own.
        DataError: the data set is none, or of another vocabulary.
    """
    kind = labels_of(control)
    needs_words(pretrained, f"what the control {control.name!r} counts")
    folder = new_control_folder(pretrained.folder, pretrained.model, control.name, name)
    check_found(folder, pretrained.folder, pretrained.model, control.name, name)
    check_writable(folder.parent)
    tell_of_weights(folder, resume=hints is not None and hints.resume)
    require_words_of(pretrained, data)
    words = cast("WordTokenizer", pretrained.tokenizer)
    data_of = partial(text_of, tokenizer=words, label=label, judge=judge)
    every = data_of(load_split(data, "train"))
    text = _some(every, sentences)
    require_heeded(kind, text)
    learned, found = kind.counted(text, words)
    held_out = learned.held_out(data_of(load_split(data, "valid")))
    tables = [table for table in found.values() if isinstance(table, CountTable)]
    counted = {"texts": learned.counted_texts(text)}
    counted |= {"cells": sum(len(table.counts) for table in tables)} if tables else {}
    card = {"control": control.name, "counted": counted, "validation": held_out}
    card |= {key: value for key, value in (("label", label), ("judge", judge)) if value is not None}
    told = None if hints is None else train_hints(learned, pretrained, every, hints, data)
    if hints is not None and told is None:
        what = f"note: what {control.name} needs for this model is counted and nothing is trained"
        print(f"{what}: --out, --resume and settings of training are not used.", file=sys.stderr)
    if hints is not None and told is not None:
        card |= {"training": hints.loop.model_dump(), EMBEDDINGS: embedding_digest(pretrained.model)}
        card["validation"] = {**held_out, **told.figures}
    _save(folder, card, learned, found, told)
    return folder


def _save(folder: Path, card: dict[str, Any], learned: Labels, found: Counted, told: Told | None) -> None:
    labels = learned.to_json()
    files = {} if labels is None else {LABELS_FILE: labels}
    if told is not None:
        files[CONFIG] = told.shape.model_dump()

    def write(staging: Path) -> None:
        save_evidence(found, staging)
        if told is not None:
            write_shards(told.state, staging, HINTS, torch.float16)

    save_control_files(write, folder, card, files)


def _some(text: LabelledText, most: int | None) -> LabelledText:
    """At most so many rows, the same every time; with known words only, unless the data itself has the labels."""
    if most is None:
        return text
    usable = [at for at, words in enumerate(text.sentences) if text.label is not None or UNK not in words]
    return text.some(sorted(np.random.default_rng(0).permutation(usable)[:most].tolist()))
