"""Counting a control's evidence in text: the substitute for a classifier if a model has no latents.

It counts how often each word occurs in each of the control's classes, which takes a minute and no training steps.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dlmctl.checkpoint.control_weights import (
    EMBEDDINGS,
    check_control_files,
    check_will_be_found,
    embedding_digest,
    new_control_folder,
    save_control_files,
    warn_of_replaced_weights,
)
from dlmctl.checkpoint.precision import round_matrices
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.weights import write_shards
from dlmctl.control.base import Control
from dlmctl.control.classifier import LABELS_FILE, forget_classifiers, labels_of, takes_hints
from dlmctl.control.evidence.beside import EvidenceFiles, save_evidence
from dlmctl.control.evidence.table import CountTable, load_table
from dlmctl.control.hints import CONFIG, HINTS
from dlmctl.control.labels import LabelledText, Labels, refuse_unused_options
from dlmctl.control.whole_words import needs_words
from dlmctl.datasets.dataset import Split, load_split, load_vocabulary, require_split
from dlmctl.datasets.staging import check_writable
from dlmctl.errors import DataError, ModelError, UserError
from dlmctl.text.terminal import spinning
from dlmctl.text.tokenizer import UNK, Tokenizer, same_encoding
from dlmctl.training.hints import HintResult, HintRun, train_hints

# Significant bits of the matrices of saved hints; the held-out bound is the same as with all.
HINT_BITS = 8


def require_words_of(pretrained: Pretrained, data: Path) -> None:
    """Refuse a data set whose vocabulary is not the model's.

    Raises:
        DataError: the folder is not a data set, or the vocabularies differ.
    """
    require_split(data, "train")
    if not same_encoding(load_vocabulary(data), pretrained.tokenizer):
        raise DataError(
            f"was prepared with a vocabulary other than the model's ({pretrained.folder}).",
            where=str(data),
            remedy="Choose the model that it was prepared for, or prepare it again (`dlmctl data prepare --vocabulary "
            "MODEL`).",
        )


def text_of(split: Split, tokenizer: Tokenizer, label: str | None = None, judge: str | None = None) -> LabelledText:
    """The sentences of a split as words, with the fields of each and the user's choice of label and judge."""
    sentences = [tokenizer.words(split.row(row).tolist()) for row in range(len(split))]
    return LabelledText(sentences, split.read_fields() if split.fields else None, label, judge)


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
    add: bool = False,
) -> Path:
    """Count a control's evidence in the training split of a prepared data set, and save it next to the model.

    Args:
        hints: how to train hints in addition (``training.hints``); None to train none.
        sentences: the most rows to count in, spread over all. Rows with an unknown word, which a parser would take for
            a name, are left out unless the data itself has the labels.
        add: add to the counts that the model has, instead of replacing them.

    Returns:
        The folder of the tables and their card.

    Raises:
        UserError: the model ships with its own evidence, or there are no counts to add to.
        DataError: ``data`` is not a data set, or has another vocabulary.
    """
    kind = labels_of(control)
    if not kind.counted_in(pretrained.tokenizer):
        needs_words(pretrained, f"what the control {control.name!r} counts")
    folder = new_control_folder(pretrained.folder, pretrained.model, control.name, name)
    check_will_be_found(folder, pretrained.folder, pretrained.model, control.name, name)
    check_writable(folder.parent)
    if not add:
        warn_of_replaced_weights(folder, resume=hints is not None and hints.resume)
    require_words_of(pretrained, data)
    read_text = partial(text_of, tokenizer=pretrained.tokenizer, label=label, judge=judge)
    with spinning(f"counting evidence for {control.name}"):
        full_text = read_text(load_split(data, "train"))
        text = _sampled(full_text, sentences)
        refuse_unused_options(kind, text)
        learned, evidence = kind.counted(text, pretrained.tokenizer)
        held_out = learned.held_out(read_text(load_split(data, "valid")))
    counted = {"texts": learned.counted_texts(text)}
    if add:
        evidence = _added(folder, learned, evidence)
        counted["texts"] += _counted_texts(folder)
    tables = [table for table in evidence.values() if isinstance(table, CountTable)]
    counted |= {"cells": sum(len(table.counts) for table in tables)} if tables else {}
    card = {"control": control.name, "counted": counted, "validation": held_out}
    card |= {key: value for key, value in (("label", label), ("judge", judge)) if value is not None}
    trained = None if hints is None else train_hints(learned, pretrained, full_text, hints, data)
    if hints is None or trained is None:
        _say_nothing_is_trained(control.name, learned, pretrained, wanted=hints is not None)
    else:
        card |= {"training": hints.loop.model_dump(), EMBEDDINGS: embedding_digest(pretrained.model)}
        held_out |= trained.figures
    _save(folder, card, learned, evidence, trained, keep=add)
    forget_classifiers(pretrained.model)  # a loaded model finds it at once
    return folder


def _say_nothing_is_trained(name: str, learned: Labels, pretrained: Pretrained, *, wanted: bool) -> None:
    """Print that a run is not needed if one was ``wanted``, else that it would train hints if there can be any."""
    if wanted:
        reason = f"note: evidence for {name} is only counted for this model, and nothing is trained"
        print(f"{reason}: --out, --resume and training settings are not used.", file=sys.stderr)
    elif takes_hints(type(learned), pretrained):
        what = "note: with --out RUN this command also trains hints, for more fluent or more varied texts"
        print(f"{what} (`--config control-small` takes minutes).", file=sys.stderr)


def _added(folder: Path, learned: Labels, evidence: EvidenceFiles) -> EvidenceFiles:
    """New counts together with those in ``folder``.

    Raises:
        UserError: there are none there, or evidence of this kind is more than counts.
        ModelError: the counts there are damaged, of another vocabulary, or of another version.
    """
    added: dict[str, CountTable] = {}
    for file, table in evidence.items():
        if not isinstance(table, CountTable) or learned.to_json() is not None:
            what = "what this control learns is more than counts, and cannot be added up."
            raise UserError(what, where="--add", remedy="Leave it out: then the new evidence replaces the earlier.")
        if not (folder / file).exists():
            what = "the model has no counts of this control to add to."
            raise UserError(what, where="--add", remedy="Leave it out.")
        earlier = load_table(folder / file, table.vocabulary)
        if len(earlier.axes) != len(table.axes):
            what = "these counts were made by another version and cannot be added to."
            raise ModelError(what, where=str(folder / file), remedy="Leave out --add to count anew.")
        added[file] = earlier.plus(table)
    return added


def _counted_texts(folder: Path) -> int:
    """The number of texts in a card."""
    counted = check_control_files(folder).get("counted")
    texts = counted.get("texts") if isinstance(counted, dict) else None
    return texts if isinstance(texts, int) else 0


def _save(
    folder: Path,
    card: dict[str, Any],
    learned: Labels,
    evidence: EvidenceFiles,
    hints: HintResult | None,
    *,
    keep: bool,
) -> None:
    labels = learned.to_json()
    files = {} if labels is None else {LABELS_FILE: labels}
    if hints is not None:
        files[CONFIG] = hints.shape.model_dump()

    def write(staging: Path) -> None:
        save_evidence(evidence, staging)
        if hints is not None:
            write_shards(round_matrices(hints.state, HINT_BITS), staging, HINTS)

    save_control_files(write, folder, card, files, keep=keep)


def _sampled(text: LabelledText, max_rows: int | None) -> LabelledText:
    """At most ``max_rows`` rows, the same every time; only known words, unless the data itself has the labels."""
    if max_rows is None:
        return text
    usable = [row for row, words in enumerate(text.sentences) if text.label is not None or UNK not in words]
    return text.some(sorted(np.random.default_rng(0).permutation(usable)[:max_rows].tolist()))
