"""The command that trains what a control needs, for messages: one that can be run as it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlmctl.control.base import Control


def training_command(
    control: type[Control[Any]], model: str | Path, name: str | None = None, *, out: str | None = "RUN"
) -> str:
    """The command, with all that it does not go without.

    Args:
        control: one with ``Labels``.
        name: of the weights, where they have one.
        out: the folder of the run, None where nothing runs.
    """
    words = [f"dlmctl train control {control.name} --model {model} --data DATA"]
    # Which field of the data has the label nothing else says.
    words += ["--label FIELD"] if control.Labels is not None and control.Labels.needs_label() else []
    words += [f"--name {name}"] if name else []
    words += [f"--out {out}"] if out else []
    return " ".join(words)
