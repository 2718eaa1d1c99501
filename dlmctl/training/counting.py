"""Evidence of a control counted from text: what takes the place of a classifier where a model has no latents.

It takes a minute and no steps: how often each word was seen in each of the control's classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dlmctl.checkpoint.control_weights import CARD, new_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.weights import staged
from dlmctl.control.base import Control
from dlmctl.control.classifier import Labels, labels_of
from dlmctl.control.evidence.table import save_table
from dlmctl.control.whole_words import needs_words
from dlmctl.datasets.dataset import Split, load_split, load_vocabulary
from dlmctl.datasets.staging import check_writable
from dlmctl.errors import DataError, UserError
from dlmctl.text.tokenizer import Tokenizer, same_words


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


def rows_of(split: Split, tokenizer: Tokenizer) -> tuple[list[list[str]], list[dict[str, Any]] | None]:
    """The sentences of a split as words, and what the data says beside each."""
    sentences = [tokenizer.words(split.row(row).tolist()) for row in range(len(split))]
    return sentences, split.read_fields() if split.fields else None


def count_control(
    control: type[Control[Any]],
    pretrained: Pretrained,
    data: Path,
    *,
    label: str | None = None,
    name: str | None = None,
    judge: str | None = None,
) -> Path:
    """Count a control's evidence in the training split of a prepared data set, and save it beside the model.

    Returns:
        The folder of the table and its card.

    Raises:
        UserError: the control counts nothing, or the model brings evidence of its own.
        DataError: the data set is none, or of another vocabulary.
    """
    if name is not None:
        raise UserError("what is counted has no name.", where="--name", remedy="Leave it out.")
    kind = labels_of(control)
    if kind.evidence is Labels.evidence:
        raise UserError(
            f"the control {control.name!r} guides by a classifier of latents, and a masked model has none.",
            where=str(pretrained.folder),
            remedy="Train it for a model with latents, such as e2e.",
        )
    needs_words(pretrained, control.name)
    folder = new_control_folder(pretrained.folder, pretrained.model, control.name)
    if folder != pretrained.folder / "controls" / control.name:
        what = f"evidence for {control.name!r} is read beside the model, and nothing can be written there."
        raise UserError(what, where=str(pretrained.folder), remedy="Copy the model's folder and give the copy.")
    check_writable(folder.parent)
    require_words_of(pretrained, data)
    rows = rows_of(load_split(data, "train"), pretrained.tokenizer)
    learned = kind.from_data(*rows, label) if judge is None else kind.judged(*rows, label, judge)
    file, table = learned.evidence(*rows, pretrained.tokenizer)
    card = {"control": control.name, "counted": {"texts": len(rows[0]), "cells": len(table.counts)}}
    with staged(folder) as staging:
        save_table(table, staging / file)
        about = card if judge is None else {**card, "judge": judge}
        (staging / CARD).write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    return folder
