"""Checkpoints of a training run: written atomically, and restored only into the run that they belong to."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dlmctl.errors import UserError, short_message
from dlmctl.text.files import flush_to_disk, require_file
from dlmctl.text.tokenizer import SPLIT_FILE
from dlmctl.training.averages import Averages
from dlmctl.training.best import BestWeights
from dlmctl.training.finite import load_best, load_optimizer, require_finite, require_same_shapes

STATE_FILE = "state.pt"
_RESUME_REMEDY = "Resume with the configuration that the run was started with."
# Loop settings that may change on --resume: how long, how fast and how often to report. Any other makes another run.
_CHANGEABLE = (
    *("steps", "lr", "warmup", "clip", "patience"),
    *("log_every", "validate_every", "checkpoint_every", "checkpoint_minutes"),
)


class TrainingState(NamedTuple):
    """What a checkpoint holds: weights, their averages, optimisers, the state of the task, the best weights."""

    model: nn.Module
    ema: Averages
    optimizers: list[Any]
    task: Any
    best: BestWeights


def digest(folder: Path) -> dict[str, str]:
    """Digests that identify a prepared data set: one of its rows and fields, one of its vocabulary."""
    rows, vocabulary = hashlib.sha256(), hashlib.sha256()
    for hasher, paths in ((rows, _split_files(folder)), (vocabulary, _vocabulary_files(folder))):
        for path in sorted(path for path in paths if path.is_file()):
            with path.open("rb") as file:
                hasher.update(hashlib.file_digest(file, "sha256").digest())
    return {"data": rows.hexdigest(), "vocabulary": vocabulary.hexdigest()}


def _split_files(folder: Path) -> list[Path]:
    """The files of a prepared data set's splits; other files in the folder do not count."""
    return [path for kind in ("ids.npy", "offsets.npy", "fields.jsonl") for path in folder.glob(f"*.{kind}")]


def _vocabulary_files(folder: Path) -> list[Path]:
    return [folder / "vocab.json", folder / SPLIT_FILE, *(folder / "tokenizer").rglob("*")]


def save_state(path: Path, state: TrainingState, step: int, identity: dict[str, Any]) -> None:
    """Write a checkpoint atomically, so that an interruption at any moment leaves a complete one.

    Raises:
        UserError: it cannot be written.
    """
    checkpoint = {
        "step": step,
        "identity": identity,
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "task": state.task.state_dict(),
        "best": state.best.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    partial, earlier = path.with_suffix(".partial"), path.exists()
    try:
        torch.save(checkpoint, partial)
        flush_to_disk(partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError about a position in the file.
        full = "" if isinstance(error, OSError) else "the disk may be full, "
        raise UserError(
            f"the checkpoint could not be written: {full}{short_message(error)}.",
            where=str(path),
            remedy="The checkpoint before it is intact; make room and give --resume."
            if earlier
            else "There is no earlier checkpoint; make room and start the run again.",
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def restore_state(path: Path, state: TrainingState, rank: int, identity: dict[str, Any]) -> int:
    """Read a checkpoint into ``state`` and return the step after which it was written.

    Raises:
        UserError: it is damaged, holds weights that are not finite, or belongs to a run with other settings, data or
            vocabulary; the message names them.
    """
    require_file(path, error=UserError, remedy=_RESUME_REMEDY)
    try:
        checkpoint = _read(path)
        step = int(checkpoint["step"])
        if step < 0:
            raise ValueError(f"it was written after step {step}")
        _refuse_another_run(path, checkpoint.get("identity"), identity, step)
        state.model.load_state_dict(checkpoint["model"])
        state.ema.load_state_dict(checkpoint["ema"])
        require_finite("the weights", state.model.named_parameters())
        require_finite("the averaged weights", state.ema.named_parameters())
        for optimizer, saved in zip(state.optimizers, checkpoint["optimizers"], strict=True):
            load_optimizer(optimizer, saved)
        _restore_task(state.task, checkpoint["task"])
        if "best" in checkpoint:  # dlmctl 0.1 did not save it
            load_best(state.best, checkpoint["best"], state.ema.module)
        _restore_randomness(checkpoint, rank, step)
    except UserError:
        raise
    except Exception as error:
        raise _misfit(path, error) from None
    return step


def _read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file. PyTorch's warnings about other files are for developers, so they are hidden."""
    try:
        with warnings.catch_warnings(action="ignore"):
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("it holds something other than tensors and numbers") from None
    except EOFError:
        raise ValueError("it is empty or cut short") from None
    return checkpoint


def _restore_task(task: Any, saved: dict[str, Tensor]) -> None:
    current = task.state_dict()
    require_same_shapes("the figures of the task", saved, current)
    require_finite("the figures of the task", saved.items())
    task.load_state_dict(saved)


def _restore_randomness(checkpoint: dict[str, Tensor | Any], rank: int, step: int) -> None:
    if rank:  # a run of several processes is not bit-exact, but ranks must not repeat rank 0's noise
        torch.manual_seed(hash((step, rank)) % 2**31)
        return
    torch.set_rng_state(checkpoint["rng"])
    if checkpoint["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(checkpoint["cuda_rng"])


def _refuse_another_run(path: Path, saved: dict[str, Any] | None, current: dict[str, Any], step: int) -> None:
    old, new = _flat(saved or current), _flat(current)
    keys = sorted(old.keys() | new.keys())
    differing = [key for key in keys if old.get(key) != new.get(key) and not _is_changeable(key)]
    changes = [_change(key, old.get(key), new.get(key)) for key in differing[:5]]
    steps = new.get("loop.steps", new.get("steps"))
    if isinstance(steps, int) and steps < step:
        changes.append(f"steps is {steps}, but {step} are already done")
    if changes:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UserError(
            f"belongs to another run: {'; '.join(changes)}{more}.",
            where=str(path),
            remedy="Resume with the settings and data that the run was started with, or use a new folder.",
        )


def _is_changeable(key: str) -> bool:
    loop, _, name = key.rpartition(".")
    return loop in ("", "loop") and name in _CHANGEABLE


def _change(key: str, old: Any, new: Any) -> str:
    if key in ("data", "vocabulary"):
        return f"the {key} has changed"
    return f"{key} was {str(old)[:60]} and is now {str(new)[:60]}"


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    joined = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in settings.items())
    return {key: value for name, inner in joined for key, value in _flat(inner, name).items()}


def _misfit(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the checkpoint does not fit these settings or is damaged: {short_message(error)}.",
        where=str(path),
        remedy=_RESUME_REMEDY,
    )
