"""The arguments of ``Model.generate`` and ``Model.stream``, which they hand on to ``generate`` as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from dlmctl.generation.prompts import Asked, Label
from dlmctl.recipe.presets import Preset
from dlmctl.recipe.settings import Criterion, Guidance, Quota, SamplerSettings, Until
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep
from dlmctl.text.fields import Given


class Options(TypedDict, total=False):
    """Each as of ``dlmctl.generation.generate.generate``, which says what it means and what it is by default."""

    label: Label | Sequence[Label] | None
    source: Given | Sequence[Given] | None
    prompt: Asked | Sequence[Asked] | None
    seed: int
    preset: Preset
    sampler: SamplerSettings | Mapping[str, Any] | None
    guidance: Guidance | Mapping[str, Any] | None
    until: Until | Mapping[str, Any] | None
    quota: Quota | Mapping[str, Any] | bool
    unique: bool
    candidates: int
    rank_by: Criterion | Sequence[Criterion]
    batch_size: int
    deterministic: bool
    device: str
    on_step: OnStep | None
    trace: bool | int | Sequence[int]
    watch: OnFrames | None
