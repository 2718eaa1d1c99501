"""Find and explain controls that contradict each other, before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dlmctl.control.check import unique_labels
from dlmctl.control.prepared import PreparedAll, overrides
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import batch_layouts, uniform_logits
from dlmctl.errors import LayoutError
from dlmctl.text.tokenizer import Tokenizer

# Methods by which a prepared control may exclude every text.
EXCLUDING_METHODS = ("restrict", "constrain", "verify")


@torch.no_grad()
def check_feasible(control: PreparedAll, batch: BatchContext[Any]) -> None:
    """Try prepared controls on a distribution in which every word is possible.

    Raises:
        LayoutError: the controls leave no word for some place, or no place for required words.
    """
    if not any(overrides(part.prepared, *EXCLUDING_METHODS) for part in control.parts):
        return
    vocabulary = batch.vocabulary
    logits = uniform_logits(batch_layouts(batch.layouts, batch.device), vocabulary, batch.model.config.vocab_size)
    left = control.restrict(logits)
    empty = torch.isneginf(left).all(-1)
    if empty.any():
        row, place = empty.nonzero()[0].tolist()
        reasons = "; ".join(_limits(control, vocabulary, logits, row, place))
        raise LayoutError(
            f"the controls contradict each other: no word is left for word {place}. {reasons}.",
            where=f"sample {batch.draws[row].sample}",
        )
    control.verify(left)
    # Again, with the requirements of each part satisfied: another part may exclude them.
    control.verify(control.constrain(left, torch.zeros(len(batch))))


def _limits(control: PreparedAll, vocabulary: Tokenizer, logits: Tensor, row: int, place: int) -> Iterator[str]:
    """Describe how each part limits a place."""
    required: list[int] = []
    parts, names = control.parts, unique_labels([part.name for part in control.parts])
    masks = [~torch.isneginf(part.restrict(logits)[row, place]) for part in parts]
    for name, allowed in zip(names, masks, strict=True):
        if allowed.sum() == 1:
            required = allowed.nonzero()[0].tolist()
            yield f"{name} wants {vocabulary.token(required[0])!r} there"
    possible = ~torch.isneginf(logits[row, place])
    for name, allowed in zip(names, masks, strict=True):
        if allowed.sum() != 1 and not allowed[required].all():
            yield f"{name} forbids it"
        elif allowed.sum() != 1 and not required and (possible & ~allowed).any():
            yield f"{name} leaves {int(allowed.sum())} of the {int(possible.sum())} words"
