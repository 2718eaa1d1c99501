"""Controls that contradict each other: found before the first step, and explained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dlmctl.control.check import numbered
from dlmctl.control.prepared import PreparedAll, has_own
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import even_logits, stacked
from dlmctl.errors import Unfit
from dlmctl.text.tokenizer import Tokenizer

# What a prepared control has of its own where it can leave no text at all.
SHUTS_OUT = ("restrict", "constrain", "verify")


@torch.no_grad()
def check_feasible(control: PreparedAll, batch: BatchContext[Any]) -> None:
    """Try prepared controls on a distribution that holds every word possible.

    Raises:
        Unfit: the controls leave no word for some place, or no place for what must be in the text.
    """
    if not any(has_own(part.prepared, *SHUTS_OUT) for part in control.parts):
        return
    vocabulary = batch.vocabulary
    logits = even_logits(stacked(batch.layouts, batch.device), vocabulary, batch.model.config.vocab_size)
    left = control.restrict(logits)
    empty = torch.isneginf(left).all(-1)
    if empty.any():
        row, place = empty.nonzero()[0].tolist()
        reasons = "; ".join(_limits(control, vocabulary, logits, row, place))
        raise Unfit(
            f"the controls contradict each other: no word is left for word {place}. {reasons}.",
            where=f"sample {batch.draws[row].sample}",
        )
    control.verify(left)
    # Once more where each part has what it requires: that may be what another one excludes.
    control.verify(control.constrain(left, torch.zeros(len(batch))))


def _limits(control: PreparedAll, vocabulary: Tokenizer, logits: Tensor, row: int, place: int) -> Iterator[str]:
    """What each part that limits a place does to it."""
    wanted: list[int] = []
    parts, names = control.parts, numbered([part.name for part in control.parts])
    kept = [~torch.isneginf(part.restrict(logits)[row, place]) for part in parts]
    for name, words in zip(names, kept, strict=True):
        if words.sum() == 1:
            wanted = words.nonzero()[0].tolist()
            yield f"{name} wants {vocabulary.token(wanted[0])!r} there"
    before = ~torch.isneginf(logits[row, place])
    for name, words in zip(names, kept, strict=True):
        if words.sum() != 1 and not words[wanted].all():
            yield f"{name} forbids it"
        elif words.sum() != 1 and not wanted and (before & ~words).any():
            yield f"{name} leaves {int(words.sum())} of the {int(before.sum())} words"
