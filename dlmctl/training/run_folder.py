"""Where a run may go: not over another one, and not among the data that it learns from."""

from __future__ import annotations

from pathlib import Path

from dlmctl.errors import UserError
from dlmctl.training.state import STATE_FILE

FIGURES = "metrics.jsonl"
_RESULTS = ("model", "scorer", "parser")


def check_run_folder(out: Path, *, resume: bool) -> None:
    """Find out before the first step whether a run can start, or go on, in ``out``.

    Raises:
        UserError: it holds an earlier run or what is left of one and ``resume`` is off, or no checkpoint and it is on.
    """
    has_checkpoint = (out / STATE_FILE).exists()
    if resume and not has_checkpoint:
        raise UserError("nothing to resume here.", where=str(out))
    if resume:
        return
    if has_checkpoint:
        remedy = "Give --resume to continue it, or another folder."
        raise UserError("holds an earlier run.", where=str(out), remedy=remedy)
    # A finished run whose checkpoint was deleted to save room, or files of somebody else. Figures alone are of a run
    # that had come to nothing yet.
    if left := [name for name in _RESULTS if _holds_something(out / name)]:
        what = f"holds {' and '.join(left)}, which a new run would replace, and no checkpoint to go on from."
        raise UserError(what, where=str(out), remedy="Give another folder, or move them away.")


def _holds_something(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def check_no_model(out: Path, model: Path) -> None:
    """Keep the files of a run out of the folder of the model that something is learned for.

    Raises:
        UserError: ``out`` is that folder.
    """
    if out.exists() and out.samefile(model):
        what = "is the model's folder, to which what is learned is added; the run needs one of its own."
        raise UserError(what, where=str(out), remedy="E.g. --out runs/mine.")


def check_apart(out: Path, *data: Path) -> None:
    """Keep a run out of prepared data, which go as a whole when they are prepared anew.

    A folder that is no data set is left to whoever reads it.

    Raises:
        UserError: ``out`` is one of these folders or lies in one.
    """
    for folder in data:
        if (folder / "train.ids.npy").exists() and out.resolve().is_relative_to(folder.resolve()):
            what = f"the run cannot stand in the data set {folder}, which is replaced as a whole."
            raise UserError(what, where=str(out), remedy="Give a folder of its own.")
