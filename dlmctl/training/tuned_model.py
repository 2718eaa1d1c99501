"""Saving a tuned masked model with those files of the original that still fit it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from dlmctl.checkpoint.control_weights import (
    ACCEPTABILITY,
    CARD,
    CONTROLS,
    acceptability_folder,
    check_control_files,
    control_roots,
    save_control_files,
)
from dlmctl.checkpoint.digests import DIGESTS
from dlmctl.checkpoint.pretrained import Pretrained, save_pretrained
from dlmctl.checkpoint.reader import pass_reader_on
from dlmctl.checkpoint.resolve import SCORER
from dlmctl.checkpoint.weights import write_shards
from dlmctl.control.hints import CONFIG, HINTS
from dlmctl.datasets.known_texts import FILE as KNOWN_TEXTS
from dlmctl.datasets.staging import check_writable, staged_folder
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import ModelError, UserError
from dlmctl.models.hints import Hints
from dlmctl.text.word_counts import FILE as COUNTS

# Files of a model other than weights, vocabulary and the weights of its controls.
COPIED_FILES = (SCORER, COUNTS, KNOWN_TEXTS)
# Entries of a card that describe how the original hints were trained.
TRAINING_ENTRIES = {DIGESTS, "training", "validation"}
log = logging.getLogger("dlmctl")


class TrainedHints(NamedTuple):
    """Hints that were tuned with the model: the folder of the originals, and the entries of the new card."""

    network: Hints
    folder: Path
    card: Mapping[str, object]


def check_output(out: Path, pretrained: Pretrained) -> None:
    """Refuse to write a tuned model over the original, or into a folder that is not writable.

    Raises:
        UserError: ``out`` is the original, or its parent is not writable.
    """
    if out.exists() and out.samefile(pretrained.folder):
        raise UserError("is the model to be tuned.", where=str(out), remedy="Give --out another folder.")
    check_writable(out.parent)


def save_tuned(model: MaskedLM, pretrained: Pretrained, hints: TrainedHints | None, out: Path) -> None:
    """Write a tuned model atomically, with the scorer and the controls of the original.

    Learned acceptability is not copied, because it reads the states of the original network, which goes on reading the
    texts of the tuned one.

    Raises:
        UserError: it cannot be written.
    """
    with staged_folder(out, "model") as staging:
        save_pretrained(model, pretrained.tokenizer, staging)
        for name in COPIED_FILES:
            source = pretrained.folder / name
            if source.is_dir():
                shutil.copytree(source, staging / name)
            elif source.is_file():
                shutil.copyfile(source, staging / name)
        with_model, of_user = control_roots(pretrained.folder, pretrained.model)
        for folder in (of_user, with_model):
            if folder.is_dir():
                # Names with a dot are staging folders that a killed run has left.
                shutil.copytree(folder, staging / CONTROLS, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        shutil.rmtree(staging / CONTROLS / ACCEPTABILITY, ignore_errors=True)
        if acceptability_folder(pretrained.folder, pretrained.model) is not None:
            _pass_reader_on(pretrained, staging)
        if hints is not None:
            _save_hints(hints, staging / CONTROLS / hints.folder.name)


def _pass_reader_on(pretrained: Pretrained, folder: Path) -> None:
    try:
        pass_reader_on(pretrained, folder)
    except ModelError as error:  # the reader is gone: no reason to lose the tuned model
        log.warning("dlmctl: %s", error)


def _save_hints(hints: TrainedHints, folder: Path) -> None:
    def write(staging: Path) -> None:
        for path in hints.folder.iterdir():
            if path.is_file() and path.name != CARD and not path.name.startswith(HINTS):
                shutil.copyfile(path, staging / path.name)
        shutil.copyfile(hints.folder / CONFIG, staging / CONFIG)
        write_shards(hints.network.state_dict(), staging, HINTS, torch.float16)

    card = check_control_files(hints.folder)
    unchanged = {key: value for key, value in card.items() if key not in TRAINING_ENTRIES}
    save_control_files(write, folder, {**unchanged, **hints.card})
