"""What texts are written about, and classifier-free guidance by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.gaussian import Gaussian
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.samplers import Rule
from dlmctl.models.conditioner import pad_sources
from dlmctl.models.interface import Conditioning

# Rows encoded at once where only the lengths of the texts are asked for.
ROWS = 256


@dataclass(frozen=True)
class Prompt:
    """What the samples of a run are given, dealt out to them in turn; empty lists for what there is none of.

    Attributes:
        labels: numbers of labels, their count for none; sources: rows of source ids.
        texts: tokens that stand before a text, of models over tokens; the last of them in the place of START.
        places: of samples that are not dealt one in turn, which one they have.
    """

    labels: Sequence[int] = ()
    sources: Sequence[Sequence[int]] = ()
    texts: Sequence[Sequence[int]] = ()
    places: Mapping[int, int] = field(default_factory=dict)

    def label(self, sample: int) -> int | None:
        return self.labels[self.places.get(sample, sample) % len(self.labels)] if self.labels else None

    def source(self, sample: int) -> Sequence[int] | None:
        return self.sources[self.places.get(sample, sample) % len(self.sources)] if self.sources else None

    def text(self, sample: int) -> Sequence[int]:
        return self.texts[self.places.get(sample, sample) % len(self.texts)] if self.texts else ()


class ClassifierFree(Gaussian):
    """The Gaussian family for the rows of one batch, each with its own label and source.

    At ``scale`` w the estimate is that without the prompt plus w times what the prompt changes, in word logits where
    the model has them, else in x_0 (Ho and Salimans 2022, eq. 6, with w - 1 as their weight); both come from one
    forward pass. 1 is the model as it was trained.

    Args:
        rule: the sampler's, made for this walk.
        prompt: None for texts about nothing in particular.
        samples: numbers of the rows' samples.
    """

    def __init__(
        self, model: DiffusionLM, rule: Rule, prompt: Prompt | None, samples: Sequence[int], scale: float
    ) -> None:
        self.contrasts = prompt is not None and model.conditioner is not None and scale != 1
        self.scale = scale
        super().__init__(model, rule, given_to(model, prompt, samples, contrast=self.contrasts))

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        if not self.contrasts:
            return super().predict(x, t, previous, mask)
        twice = None if previous is None else torch.cat([previous, previous])
        masks = None if mask is None else torch.cat([mask, mask])
        both = super().predict(torch.cat([x, x]), torch.cat([t, t]), twice, masks)
        if both.logits is None:
            return Prediction(lambda: _guided(both.x0, self.scale))
        return self.model.prediction_of_words(_guided(both.logits, self.scale))


@torch.no_grad()
def given_to(
    model: DiffusionLM, prompt: Prompt | None, samples: Sequence[int], *, contrast: bool = False
) -> Conditioning | None:
    """What the network receives for each of ``samples``; with ``contrast`` once more for each, about nothing."""
    if model.conditioner is None:
        return None
    nothing: list[tuple[int | None, Sequence[int] | None]] = [(None, None)] * len(samples)
    rows = nothing if prompt is None else [(prompt.label(sample), prompt.source(sample)) for sample in samples]
    return model.condition(*batch_of(model, [*rows, *(nothing if contrast else [])]))


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
def length_weights(model: DiffusionLM, prompt: Prompt, samples: Sequence[int]) -> dict[int, list[float]]:
    """How likely each number of words, from 0, is for the text of each sample, given its label and source."""
    assert model.conditioner is not None
    found: dict[int, list[float]] = {}
    for at in range(0, len(samples), ROWS):
        chosen = samples[at : at + ROWS]
        labels, sources = batch_of(model, [(prompt.label(sample), prompt.source(sample)) for sample in chosen])
        logits = model.conditioner.length_logits(labels, model.conditioner(labels, sources))
        found.update(zip(chosen, logits.double().softmax(-1).tolist(), strict=True))
    return found
