"""The labels that the weights of a control were trained on, for a local model."""

from __future__ import annotations

from typing import Any

from dlmctl.checkpoint.control_weights import control_folders
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.base import Control
from dlmctl.control.classifier import LABELS_FILE
from dlmctl.errors import ModelError
from dlmctl.text.files import read_json


def trained_values(kind: type[Control[Any]], model: str) -> dict[str, dict[str, list[str]]]:
    """The values of each field that the weights of a control for a model distinguish, by the name of the weights.

    Empty if there are no weights, or if their labels are known beforehand.

    Raises:
        ModelError: there is no such model, or the labels cannot be read.
    """
    if kind.Labels is None:
        return {}
    pretrained = from_pretrained(model)
    values_by_name: dict[str, dict[str, list[str]]] = {}
    for folder in control_folders(pretrained.folder, pretrained.model, kind.name):
        for path in sorted([*folder.glob(LABELS_FILE), *folder.glob(f"*/{LABELS_FILE}")]):
            saved = read_json(path, remedy="Train the control again.")
            values = saved.get("values") if isinstance(saved, dict) else {"label": saved}
            if not isinstance(values, dict) or not all(isinstance(labels, list) for labels in values.values()):
                raise ModelError("holds no labels.", where=str(path), remedy="Train the control again.")
            name = "" if path.parent == folder else path.parent.name
            values_by_name.setdefault(name, {str(key): list(map(str, labels)) for key, labels in values.items()})
    return values_by_name
