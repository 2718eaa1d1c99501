"""The verdicts of all controls on finished texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmctl.control.base import Check, Control, parts_of


def check_all(control: Control[Any] | None, words: Sequence[Sequence[str]]) -> list[dict[str, Check]]:
    """The verdicts on each text by control label; a composition of all reports each of its parts."""
    if control is None:
        return [{} for _ in words]
    parts = parts_of(control)
    verdicts: dict[str, list[Check]] = {}
    for part in parts:
        label = part.name
        while label in verdicts:  # two controls of one kind
            label += "'"
        verdicts[label] = part.check(words)
    return [{label: checks[at] for label, checks in verdicts.items()} for at in range(len(words))]
