"""Presets compared: seconds per sample, control success and lm-score, on the same weights and targets in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dlmctl.checkpoint.control_weights import find_control_folder
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.catalogue import installed
from dlmctl.errors import UserError
from dlmctl.generation.generate import generate
from dlmctl.generation.results import Generation
from dlmctl.generation.sample_groups import UNSCORED
from dlmctl.metrics.nats import Nats, nats_of
from dlmctl.recipe.presets import FamilyName, Preset, PresetSettings, settings_of
from dlmctl.recipe.settings import SamplerSettings

# The fluency weight of Li et al. 2022 (appendix) for each control; 0.01 for controls that are not in the paper.
PAPER_FLUENCY = {"semantic": 0.01, "length": 0.01, "pos": 1e-4, "syntax_tree": 5e-4, "spans": 0.1}

Watch = Callable[[str], None]


class Case(NamedTuple):
    """What to generate: free text if ``control`` is None, else one text for each of its targets."""

    name: str
    control: Control[Any] | None
    samples: int


class Speed(NamedTuple):
    """One preset on one case.

    Attributes:
        seconds: wall-clock seconds per sample for drawing and checking, the median over the repeats.
        least, most: the same for the fastest and the slowest repeat.
        success: mean score of the control's check; None for free text.
        lm_score: nats under the scorer; None without a scorer.
    """

    case: str
    preset: Preset
    seconds: float
    least: float
    most: float
    success: float | None
    lm_score: float | None


def settings_for(
    preset: Preset, case: str, family: FamilyName = "gaussian", chosen: PresetSettings | None = None
) -> PresetSettings:
    """The settings of a preset for a family, or those ``chosen`` instead; ``paper`` of latent models has a fluency
    weight for each control."""
    chosen = settings_of(preset, family) if chosen is None else chosen
    if preset != "paper" or family != "gaussian":
        return chosen
    return chosen._replace(guidance=chosen.guidance.model_copy(update={"fluency": PAPER_FLUENCY.get(case, 0.01)}))


def compare(
    pretrained: Pretrained,
    cases: Sequence[Case],
    presets: Mapping[Preset, PresetSettings] | Sequence[Preset],
    *,
    repeats: int = 1,
    seed: int = 0,
    scorer: str | None = None,
    watch: Watch | None = None,
) -> Iterator[Speed]:
    """Time every preset on every case, the presets taking turns, so that a busy machine slows all of them alike.

    Args:
        presets: their names, or their settings by name.
        repeats: how often each is timed; the texts are the same every time.
        scorer: as in ``nats_of``.
        watch: called with a description of the next run.
    """
    nats = nats_of(pretrained, scorer)
    chosen = presets if isinstance(presets, Mapping) else dict.fromkeys(presets)
    family = pretrained.model.family
    sampler, guidance = settings_for("fast", "free", family, chosen.get("fast"))
    generate(model=pretrained, samples=1, sampler=sampler, guidance=guidance, groups=UNSCORED)  # warms up
    for case in cases:
        runs: dict[Preset, list[Generation]] = {preset: [] for preset in presets}
        for _ in range(repeats):
            for preset in presets:
                if watch is not None:
                    watch(f"{case.name}, {preset}")
                sampler, guidance = settings_for(preset, case.name, family, chosen[preset])
                runs[preset].append(
                    generate(
                        case.control,
                        model=pretrained,
                        samples=case.samples,
                        seed=seed,
                        sampler=sampler,
                        guidance=guidance,
                        groups=UNSCORED,
                    )
                )
        for preset, preset_runs in runs.items():
            yield _speed(nats, case, preset, preset_runs)


def _speed(nats: Nats | None, case: Case, preset: Preset, runs: list[Generation]) -> Speed:
    seconds = [run.seconds / case.samples for run in runs]
    scores = [check.score for sample in runs[0] for check in sample.checks.values()]
    fluency = None if nats is None else nats([sample.words for sample in runs[0]])
    success = statistics.fmean(scores) if scores else None
    return Speed(case.name, preset, statistics.median(seconds), min(seconds), max(seconds), success, fluency)


def self_generated_cases(
    pretrained: Pretrained, samples: int, *, seed: int = 0, sampler: SamplerSettings | None = None
) -> list[Case]:
    """Free text, and each control with weights for the model that can read targets from a text.

    The targets are read from texts that the model draws, so that no data is needed and the model can write them all.
    """
    drawn = generate(model=pretrained, samples=samples, seed=seed + 1, sampler=sampler, groups=UNSCORED)
    texts = [sample.words for sample in drawn if sample.words]  # a model that ends its texts may write none
    cases = [Case("free", None, samples)]
    for plugin in installed()[0]:
        if not texts or find_control_folder(pretrained.folder, pretrained.model, plugin.name) is None:
            continue
        try:
            control = plugin.kind.each(plugin.kind.from_words(texts))
        except UserError:  # its targets cannot be read from a text
            continue
        cases.append(Case(plugin.name, control.for_model(pretrained), samples))
    return cases


def speedup_over_paper(rows: Sequence[Speed], row: Speed) -> float:
    """How many times as fast as the preset ``paper`` on the same case."""
    (paper,) = (other for other in rows if (other.case, other.preset) == (row.case, "paper"))
    return paper.seconds / row.seconds
