"""What the weights of a control know, for a model on this machine."""

from __future__ import annotations

from typing import Any

from dlmctl.checkpoint.control_weights import control_folders
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.base import Control
from dlmctl.control.classifier import LABELS_FILE
from dlmctl.errors import ModelError
from dlmctl.text.files import read_json


def trained_values(kind: type[Control[Any]], model: str) -> dict[str, dict[str, list[str]]]:
    """What the weights of a control for a model tell apart: by the name of the weights, the values of each field.

    Empty where no weights are there, or their labels are known beforehand.

    Raises:
        ModelError: there is no such model, or the labels cannot be read.
    """
    if kind.Labels is None:
        return {}
    pretrained = from_pretrained(model)
    found: dict[str, dict[str, list[str]]] = {}
    for folder in control_folders(pretrained.folder, pretrained.model, kind.name):
        for path in sorted([*folder.glob(LABELS_FILE), *folder.glob(f"*/{LABELS_FILE}")]):
            saved = read_json(path, remedy="Train the control again.")
            values = saved.get("values") if isinstance(saved, dict) else {"label": saved}
            if not isinstance(values, dict) or not all(isinstance(one, list) for one in values.values()):
                raise ModelError("holds no labels.", where=str(path), remedy="Train the control again.")
            name = "" if path.parent == folder else path.parent.name
            found.setdefault(name, {str(key): list(map(str, one)) for key, one in values.items()})
    return found
