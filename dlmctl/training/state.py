"""Checkpoints of a training run: written in one move, and read only by the run that they belong to."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dlmctl.errors import UserError, brief
from dlmctl.text.files import require_file
from dlmctl.text.tokenizer import SPLIT_FILE
from dlmctl.training.averages import Averages
from dlmctl.training.best import Best
from dlmctl.training.finite import load_best, load_stepper, require_alike, require_finite

STATE_FILE = "state.pt"
_AS_STARTED = "Resume with the configuration that the run was started with."
# What a run may be continued with: how long, how fast, and how often it tells of itself. All else makes another run.
_FREE = (
    *("steps", "lr", "warmup", "clip", "patience"),
    *("log_every", "validate_every", "checkpoint_every", "checkpoint_minutes"),
)


class Parts(NamedTuple):
    """What a checkpoint holds: weights, their averages, optimisers, the task's own state, the best weights."""

    model: nn.Module
    ema: Averages
    steppers: list[Any]
    task: Any
    best: Best


def digest(folder: Path) -> dict[str, str]:
    """What a prepared data set is, in short: a digest of its rows and fields, and one of its vocabulary."""
    rows, words = hashlib.sha256(), hashlib.sha256()
    for found, paths in ((rows, _split_files(folder)), (words, _vocabulary_files(folder))):
        for path in sorted(path for path in paths if path.is_file()):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return {"data": rows.hexdigest(), "vocabulary": words.hexdigest()}


def _split_files(folder: Path) -> list[Path]:
    """What the splits of a prepared data set consist of; whatever else lies beside them is no part of it."""
    return [path for kind in ("ids.npy", "offsets.npy", "fields.jsonl") for path in folder.glob(f"*.{kind}")]


def _vocabulary_files(folder: Path) -> list[Path]:
    return [folder / "vocab.json", folder / SPLIT_FILE, *(folder / "tokenizer").rglob("*")]


def save_state(path: Path, parts: Parts, step: int, identity: dict[str, Any]) -> None:
    """Write a checkpoint in one move, so that an interruption at any moment leaves a whole one.

    Raises:
        UserError: it cannot be written.
    """
    state = {
        "step": step,
        "identity": identity,
        "model": parts.model.state_dict(),
        "ema": parts.ema.state_dict(),
        "optimizers": [stepper.state_dict() for stepper in parts.steppers],
        "task": parts.task.state_dict(),
        "best": parts.best.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    partial, earlier = path.with_suffix(".partial"), path.exists()
    try:
        torch.save(state, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint could not be written: {brief(error)}.",
            where=str(path),
            remedy="The checkpoint before it is untouched; make room and give --resume."
            if earlier
            else "There is none before it: make room and start the run again.",
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def restore_state(path: Path, parts: Parts, rank: int, identity: dict[str, Any]) -> int:
    """Read a checkpoint into ``parts`` and return the step that it was written after.

    Raises:
        UserError: it is damaged or holds weights that are no numbers, or belongs to a run with other settings, data or
            vocabulary; the message names them.
    """
    require_file(path, error=UserError, remedy=_AS_STARTED)
    try:
        state = _read(path)
        step = int(state["step"])
        if step < 0:
            raise ValueError(f"it was written after step {step}")
        _refuse_another_run(path, state.get("identity"), identity, step)
        parts.model.load_state_dict(state["model"])
        parts.ema.load_state_dict(state["ema"])
        require_finite("the weights", parts.model.named_parameters())
        require_finite("the averaged weights", parts.ema.named_parameters())
        for stepper, saved in zip(parts.steppers, state["optimizers"], strict=True):
            load_stepper(stepper, saved)
        _restore_task(parts.task, state["task"])
        if "best" in state:  # which runs of dlmctl 0.1 did not keep
            load_best(parts.best, state["best"], parts.ema.module)
        _restore_randomness(state, rank, step)
    except UserError:
        raise
    except Exception as error:
        raise _misfit(path, error) from None
    return step


def _read(path: Path) -> dict[str, Any]:
    """What a file holds; what PyTorch says of one that is no checkpoint is for those who wrote it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError("it holds something else than tensors and numbers") from None
    except EOFError:
        raise ValueError("it is empty or cut short") from None
    return state


def _restore_task(task: Any, saved: dict[str, Tensor]) -> None:
    own = task.state_dict()
    require_alike("the figures of the task", saved, own)
    require_finite("the figures of the task", saved.items())
    task.load_state_dict(saved)


def _restore_randomness(state: dict[str, Tensor | Any], rank: int, step: int) -> None:
    if rank:  # a run of several processes is not bit-exact, but ranks must not repeat rank 0's noise
        torch.manual_seed(hash((step, rank)) % 2**31)
        return
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])


def _refuse_another_run(path: Path, before: dict[str, Any] | None, now: dict[str, Any], step: int) -> None:
    old, new = _flat(before or now), _flat(now)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key) and not _is_free(key)]
    changes = [_change(key, old.get(key), new.get(key)) for key in differing[:5]]
    steps = new.get("loop.steps", new.get("steps"))
    if isinstance(steps, int) and steps < step:
        changes.append(f"steps is {steps}, of which {step} are done already")
    if changes:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UserError(
            f"is of another run: {'; '.join(changes)}{more}.",
            where=str(path),
            remedy="Resume with what the run was started with, or take a new folder.",
        )


def _is_free(key: str) -> bool:
    loop, _, name = key.rpartition(".")
    return loop in ("", "loop") and name in _FREE


def _change(key: str, old: Any, new: Any) -> str:
    if key in ("data", "vocabulary"):
        return f"the {key} is another"
    return f"{key} was {str(old)[:60]} and is {str(new)[:60]}"


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    joined = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in settings.items())
    return {key: value for name, inner in joined for key, value in _flat(inner, name).items()}


def _misfit(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the checkpoint does not fit these settings or is damaged: {brief(error)}.",
        where=str(path),
        remedy=_AS_STARTED,
    )
