"""A control as a whole: its parts, prepared together but each with its own verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmctl.control.base import All, Control
from dlmctl.control.check import Check, unique_labels
from dlmctl.control.prepared import PreparedAll
from dlmctl.control.state import BatchContext


def parts_of(control: Control[Any]) -> list[Control[Any]]:
    """The controls that must all hold: the parts of an ``All``, or the control alone."""
    return control.parts if isinstance(control, All) else [control]


def prepare_all(control: Control[Any], batch: BatchContext[Any]) -> PreparedAll:
    """The controls that must all hold, prepared for a batch."""
    return All([control]).ready(batch)


def check_all(
    control: Control[Any] | None,
    samples: Sequence[int],
    texts: Sequence[Sequence[str]],
    written: Sequence[str] | None = None,
) -> list[dict[str, Check]]:
    """The verdicts on the text of each sample, by control label; an ``All`` reports each of its parts.

    Args:
        texts, written: the words of each text, and the text as written; see ``Control.verdicts``.
    """
    if control is None:
        return [{} for _ in texts]
    parts = parts_of(control)
    labels = unique_labels([part.name for part in parts])
    verdicts = {label: part.verdicts(samples, texts, written) for label, part in zip(labels, parts, strict=True)}
    return [{label: checks[at] for label, checks in verdicts.items()} for at in range(len(texts))]
