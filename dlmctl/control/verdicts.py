"""The verdicts on texts of all the controls that they are to satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmctl.control.base import Control, parts_of
from dlmctl.control.check import Check, numbered


def check_all(
    control: Control[Any] | None, samples: Sequence[int], texts: Sequence[Sequence[str]]
) -> list[dict[str, Check]]:
    """The verdicts on the text of each sample by control label; a composition of all reports each of its parts."""
    if control is None:
        return [{} for _ in texts]
    parts = parts_of(control)
    labels = numbered([part.name for part in parts])
    verdicts = {label: part.verdicts(samples, texts) for label, part in zip(labels, parts, strict=True)}
    return [{label: checks[at] for label, checks in verdicts.items()} for at in range(len(texts))]
