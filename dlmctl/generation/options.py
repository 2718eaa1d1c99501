"""Types of the arguments that models, recipes and target rows pass on to ``generate`` unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from dlmctl.generation.prompts import Label, PromptLike
from dlmctl.recipe.presets import Preset
from dlmctl.recipe.settings import Criterion, Guidance, Quota, SamplerSettings, Until
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep
from dlmctl.text.fields import Source


class TraceOptions(TypedDict, total=False):
    """Options for observing the steps of a run; see ``dlmctl.generation.generate.generate``."""

    on_step: OnStep | None
    trace: bool | int | Sequence[int]
    watch: OnFrames | None


class ObserverOptions(TraceOptions, total=False):
    """The same, with the progress callback."""

    progress: Progress | None


class Options(TraceOptions, total=False):
    """The options of ``dlmctl.generation.generate.generate``, which documents each with its default."""

    label: Label | Sequence[Label] | None
    source: Source | Sequence[Source] | None
    prompt: PromptLike | Sequence[PromptLike] | None
    seed: int
    preset: Preset
    sampler: SamplerSettings | Mapping[str, Any] | None
    guidance: Guidance | Mapping[str, Any] | None
    until: Until | Mapping[str, Any] | None
    quota: Quota | Mapping[str, Any] | bool
    unique: bool
    candidates: int
    rank_by: Criterion | Sequence[Criterion]
    second_scorer: str | Path | None
    batch_size: int
    deterministic: bool
    device: str
