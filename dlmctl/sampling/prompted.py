"""A model together with what the texts of one batch are given: x_0 estimates with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlmctl.diffusion.model import DiffusionLM, Prediction
from dlmctl.models.conditioner import Conditioning, pad_sources

# Rows encoded at once where only the lengths of the texts are asked for.
ROWS = 256


class Conditioned:
    """``predict`` of a model for the rows of one batch, each with its own label and source.

    At ``scale`` w the estimate is that without the condition plus w times what the condition changes, in word logits
    where the model has them, else in x_0 (Ho and Salimans 2022, eq. 6, with w - 1 as their weight); both come from
    one forward pass. 1 is the model as it was trained.

    Args:
        samples: numbers of the rows' samples.
        condition: None for texts about nothing in particular.
        inside: ``[B, L]``, the positions that count; None for all.
    """

    def __init__(
        self,
        model: DiffusionLM,
        condition: Condition | None,
        samples: Sequence[int],
        scale: float,
        inside: Tensor | None = None,
    ) -> None:
        self.model, self.scale, self.inside = model, scale, inside
        self.contrasts = condition is not None and model.conditioner is not None and scale != 1
        self.given: Conditioning | None = None
        if model.conditioner is not None:
            rows: list[tuple[int | None, Sequence[int] | None]] = [(None, None)] * len(samples)
            if condition is not None:
                rows = [(condition.label(sample), condition.source(sample)) for sample in samples]
            if self.contrasts:
                rows += [(None, None)] * len(samples)
            with torch.no_grad():
                self.given = model.condition(*batch_of(model, rows))

    def predict(self, x_t: Tensor, t: Tensor, previous_x0: Tensor | None = None) -> Prediction:
        """As ``DiffusionLM.predict``."""
        if not self.contrasts:
            return self.model.predict(x_t, t, previous_x0, self.given, self.inside)
        previous = None if previous_x0 is None else torch.cat([previous_x0, previous_x0])
        inside = None if self.inside is None else torch.cat([self.inside, self.inside])
        both = self.model.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), previous, self.given, inside)
        if both.logits is None:
            return Prediction(lambda: _guided(both.x0, self.scale))
        return self.model.prediction_of_words(_guided(both.logits, self.scale))


def _guided(both: Tensor, scale: float) -> Tensor:
    with_it, without = both.chunk(2)
    return without + scale * (with_it - without)


def batch_of(
    model: DiffusionLM, rows: Sequence[tuple[int | None, Sequence[int] | None]]
) -> tuple[Tensor | None, Tensor | None]:
    """Labels ``[B]`` and sources ``[B, S]`` for a number and ids a row, None where nothing is given."""
    assert model.conditioner is not None
    labels, sources = model.conditioner.nothing(len(rows))
    if labels is not None:
        none = int(labels[0])
        labels = torch.tensor([none if label is None else label for label, _ in rows], device=labels.device)
    if sources is not None:
        nothing = sources[0].tolist()
        sources = pad_sources([nothing if ids is None else ids for _, ids in rows]).to(sources.device)
    return labels, sources


@torch.no_grad()
def length_weights(model: DiffusionLM, condition: Condition, samples: Sequence[int]) -> dict[int, list[float]]:
    """How likely each number of words, from 0, is for the text of each sample, given its label and source."""
    assert model.conditioner is not None
    found: dict[int, list[float]] = {}
    for at in range(0, len(samples), ROWS):
        chosen = samples[at : at + ROWS]
        labels, sources = batch_of(model, [(condition.label(sample), condition.source(sample)) for sample in chosen])
        logits = model.conditioner.length_logits(labels, model.conditioner(labels, sources))
        found.update(zip(chosen, logits.double().softmax(-1).tolist(), strict=True))
    return found


@dataclass(frozen=True)
class Condition:
    """What the samples of a run are given, dealt out to them in turn; empty lists for what there is none of.

    Attributes:
        labels: numbers of labels, their count for none; sources: rows of source ids.
    """

    labels: Sequence[int] = ()
    sources: Sequence[Sequence[int]] = ()

    def label(self, sample: int) -> int | None:
        return self.labels[sample % len(self.labels)] if self.labels else None

    def source(self, sample: int) -> Sequence[int] | None:
        return self.sources[sample % len(self.sources)] if self.sources else None
