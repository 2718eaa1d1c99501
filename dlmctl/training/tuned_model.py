"""Saving a masked model whose network was tuned, with what belongs to it and still fits."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from dlmctl.checkpoint.control_weights import (
    ACCEPTABILITY,
    CARD,
    check_control_files,
    control_folders,
    save_control_files,
)
from dlmctl.checkpoint.digests import DIGESTS
from dlmctl.checkpoint.pretrained import Pretrained, save_pretrained
from dlmctl.checkpoint.weights import write_shards
from dlmctl.control.hints import CONFIG, HINTS
from dlmctl.datasets.known_texts import FILE as KNOWN_TEXTS
from dlmctl.datasets.staging import check_writable, staged
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.errors import UserError
from dlmctl.models.hints import Hints
from dlmctl.text.word_counts import FILE as COUNTS

CONTROLS = "controls"
# What belongs to a model beside its weights, its words and what its controls have learned.
BESIDE = ("scorer", COUNTS, KNOWN_TEXTS)
# What a card says of how hints were made, which is of others.
OF_HINTS = {DIGESTS, "training", "validation"}


class TrainedHints(NamedTuple):
    """Hints that were trained along: the folder that they come from, and what trained them."""

    network: Hints
    folder: Path
    card: Mapping[str, object]


def check_place(out: Path, pretrained: Pretrained) -> None:
    """Refuse to write a tuned model over the one that is tuned, or where nothing can be written.

    Raises:
        UserError: it is that one, or nothing can.
    """
    if out.exists() and out.samefile(pretrained.folder):
        raise UserError("is the model that is to be tuned.", where=str(out), remedy="Give --out another folder.")
    check_writable(out.parent)


def save_tuned(model: MaskedLM, pretrained: Pretrained, hints: TrainedHints | None, out: Path) -> None:
    """Write a tuned model, in one move, with the scorer and the controls of the model that it was.

    What was learned of acceptability stays behind: it was read off the old network.

    Raises:
        UserError: it cannot be written.
    """
    with staged(out, "model") as staging:
        save_pretrained(model, pretrained.tokenizer, staging)
        for part in BESIDE:
            here = pretrained.folder / part
            if here.is_dir():
                shutil.copytree(here, staging / part)
            elif here.is_file():
                shutil.copyfile(here, staging / part)
        beside, own = (place.parent for place in control_folders(pretrained.folder, pretrained.model, CARD))
        for place in (own, beside):
            if place.is_dir():
                shutil.copytree(place, staging / CONTROLS, dirs_exist_ok=True)
        shutil.rmtree(staging / CONTROLS / ACCEPTABILITY, ignore_errors=True)
        if hints is not None:
            _save_hints(hints, staging / CONTROLS / hints.folder.name)


def _save_hints(hints: TrainedHints, folder: Path) -> None:
    def write(staging: Path) -> None:
        for path in hints.folder.iterdir():
            if path.is_file() and path.name != CARD and not path.name.startswith(HINTS):
                shutil.copyfile(path, staging / path.name)
        shutil.copyfile(hints.folder / CONFIG, staging / CONFIG)
        write_shards(hints.network.state_dict(), staging, HINTS, torch.float16)

    known = {key: value for key, value in check_control_files(hints.folder).items() if key not in OF_HINTS}
    save_control_files(write, folder, {**known, **hints.card})
