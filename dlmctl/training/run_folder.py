"""Checks on the folder of a run: not over another run, and not inside the data that it learns from."""

from __future__ import annotations

import os
from pathlib import Path

from dlmctl.checkpoint.resolve import SCORER
from dlmctl.datasets.staging import check_writable
from dlmctl.errors import UserError
from dlmctl.training.state import STATE_FILE

METRICS_FILE = "metrics.jsonl"
_RESULT_FOLDERS = ("model", SCORER, "parser")


def check_run_folder(out: Path, *data: Path, resume: bool) -> None:
    """Check before anything slow that a run can start, or continue, in ``out``.

    Args:
        data: what it learns from, as for ``check_apart``.

    Raises:
        UserError: it holds an earlier run or its result and ``resume`` is off, or no checkpoint and it is on; it cannot
            be written; or as ``check_apart``.
    """
    check_apart(out, *data)
    check_writable(next(path for path in (out, *out.parents) if os.path.lexists(path)))
    has_checkpoint = (out / STATE_FILE).exists()
    if resume and not has_checkpoint:
        raise UserError("nothing to resume here.", where=str(out))
    if resume:
        return
    if has_checkpoint:
        remedy = "Give --resume to continue it, or another folder."
        raise UserError("holds an earlier run.", where=str(out), remedy=remedy)
    # A finished run whose checkpoint was deleted to save space, or somebody else's files. A run with metrics alone has
    # no result to lose.
    if results := [name for name in _RESULT_FOLDERS if _has_files(out / name)]:
        message = f"holds {' and '.join(results)}, which a new run would replace, and no checkpoint to resume from."
        raise UserError(message, where=str(out), remedy="Give another folder, or move them away.")


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def check_no_model(out: Path, model: Path) -> None:
    """Refuse to write the files of a run into the folder of the model that is trained for.

    Raises:
        UserError: ``out`` is that folder.
    """
    if out.exists() and out.samefile(model):
        message = "is the model's folder, which receives the learned weights; the run needs another folder."
        raise UserError(message, where=str(out), remedy="E.g. --out runs/mine.")


def check_apart(out: Path, *data: Path) -> None:
    """Refuse to write a run into prepared data, whose folder is replaced when the data is prepared again.

    Folders that are not data sets are ignored here; reading them raises its own error.

    Raises:
        UserError: ``out`` is one of these folders or inside one.
    """
    for folder in data:
        if (folder / "train.ids.npy").exists() and out.resolve().is_relative_to(folder.resolve()):
            message = f"the run cannot be inside the data set {folder}, which is replaced as a whole."
            raise UserError(message, where=str(out), remedy="Give another folder.")
