"""The labels, sources and prompts of texts, and classifier-free guidance by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.gaussian import Gaussian
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.samplers import Rule
from dlmctl.models.conditioner import pad_sources
from dlmctl.models.interface import Conditioning
from dlmctl.models.numerics import in_float64

# Rows encoded at once when only the lengths of the texts are needed.
LENGTH_BATCH = 256


@dataclass(frozen=True)
class Prompt:
    """The labels, sources and prompts of a run, assigned to its samples in turn; lists that are not used are empty.

    Attributes:
        labels: label numbers; their count stands for no label.
        sources: rows of source ids.
        texts: for models over tokens, the tokens before a text; the last of them takes the place of START.
        places: the index of the entry for samples that are not assigned one in turn.
        listed: the entries of those settings that are lists, as their user wrote them, by the name of the setting.
    """

    labels: Sequence[int] = ()
    sources: Sequence[Sequence[int]] = ()
    texts: Sequence[Sequence[int]] = ()
    places: Mapping[int, int] = field(default_factory=dict)
    listed: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def entries(self, sample: int) -> dict[str, Any]:
        """Which entry of each list a sample is assigned; None entries are left out."""
        place = self.places.get(sample, sample)
        entries = {name: values[place % len(values)] for name, values in self.listed.items()}
        return {name: value for name, value in entries.items() if value is not None}

    def label(self, sample: int) -> int | None:
        return self.labels[self.places.get(sample, sample) % len(self.labels)] if self.labels else None

    def source(self, sample: int) -> Sequence[int] | None:
        return self.sources[self.places.get(sample, sample) % len(self.sources)] if self.sources else None

    def text(self, sample: int) -> Sequence[int]:
        return self.texts[self.places.get(sample, sample) % len(self.texts)] if self.texts else ()


class ClassifierFree(Gaussian):
    """The Gaussian family for the rows of one batch, each with its own label and source.

    At ``scale`` w the estimate is the unconditional one plus w times the change that the prompt makes, in word logits
    if the model has them, else in x_0 (Ho and Salimans 2022, eq. 6, with w - 1 as their weight); both come from one
    forward pass. At scale 1 the model is unchanged.

    Args:
        rule: the sampler's update rule, made for this walk.
        prompt: None for unconditional texts.
        samples: the sample numbers of the rows.
    """

    def __init__(
        self, model: DiffusionLM, rule: Rule, prompt: Prompt | None, samples: Sequence[int], scale: float
    ) -> None:
        self.contrasts = prompt is not None and model.conditioner is not None and scale != 1
        self.scale = scale
        super().__init__(model, rule, conditioning_for(model, prompt, samples, contrast=self.contrasts))

    def predict(self, x: Tensor, t: Tensor, previous: Tensor | None, mask: Tensor | None) -> Prediction:
        if not self.contrasts:
            return super().predict(x, t, previous, mask)
        previous_twice = None if previous is None else torch.cat([previous, previous])
        masks = None if mask is None else torch.cat([mask, mask])
        both = super().predict(torch.cat([x, x]), torch.cat([t, t]), previous_twice, masks)
        if both.logits is None:
            return Prediction(lambda: _guided(both.x0, self.scale))
        return self.model.prediction_of_words(_guided(both.logits, self.scale))


@torch.no_grad()
def conditioning_for(
    model: DiffusionLM, prompt: Prompt | None, samples: Sequence[int], *, contrast: bool = False
) -> Conditioning | None:
    """The conditioning of the network for each of ``samples``; with ``contrast`` followed by an unconditional one for
    each."""
    if model.conditioner is None:
        return None
    unconditional: list[tuple[int | None, Sequence[int] | None]] = [(None, None)] * len(samples)
    rows = unconditional if prompt is None else [(prompt.label(sample), prompt.source(sample)) for sample in samples]
    return model.condition(*_condition_tensors(model, [*rows, *(unconditional if contrast else [])]))


def _guided(both: Tensor, scale: float) -> Tensor:
    conditional, unconditional = both.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def _condition_tensors(
    model: DiffusionLM, rows: Sequence[tuple[int | None, Sequence[int] | None]]
) -> tuple[Tensor | None, Tensor | None]:
    """Labels ``[B]`` and sources ``[B, S]`` of rows of a label number and source ids, each None for none."""
    assert model.conditioner is not None
    labels, sources = model.conditioner.nothing(len(rows))
    if labels is not None:
        no_label = int(labels[0])
        labels = torch.tensor([no_label if label is None else label for label, _ in rows], device=labels.device)
    if sources is not None:
        no_source = sources[0].tolist()
        sources = pad_sources([no_source if ids is None else ids for _, ids in rows]).to(sources.device)
    return labels, sources


@torch.no_grad()
def length_weights(model: DiffusionLM, prompt: Prompt, samples: Sequence[int]) -> dict[int, list[float]]:
    """The probability of each number of words, from 0, for the text of each sample, given its label and source."""
    assert model.conditioner is not None
    weights: dict[int, list[float]] = {}
    for start in range(0, len(samples), LENGTH_BATCH):
        batch = samples[start : start + LENGTH_BATCH]
        labels, sources = _condition_tensors(model, [(prompt.label(sample), prompt.source(sample)) for sample in batch])
        logits = model.conditioner.length_logits(labels, model.conditioner(labels, sources))
        weights.update(zip(batch, in_float64(logits).softmax(-1).tolist(), strict=True))
    return weights
