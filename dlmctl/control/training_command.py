"""The command that trains the weights of a control, for messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlmctl.control.base import Control
from dlmctl.control.user_files import reference_to


def training_command(
    control: type[Control[Any]], model: str | Path, name: str | None = None, *, out: str | None = "RUN"
) -> str:
    """The training command with all options that it requires.

    Args:
        control: a control with ``Labels``.
        name: name of the weights, if they have one.
        out: folder of the run, None if the command needs no run.
    """
    words = [f"dlmctl train control {reference_to(control) or control.name} --model {model} --data DATA"]
    # Nothing else tells which field of the data holds the label.
    words += ["--label FIELD"] if control.Labels is not None and control.Labels.needs_label() else []
    words += [f"--name {name}"] if name else []
    words += [f"--out {out}"] if out else []
    return " ".join(words)
