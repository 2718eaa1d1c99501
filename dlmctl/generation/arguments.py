"""Checks of the arguments of Python callers before anything is loaded; every error message says what would be right.

Recipes are checked where they are read (``dlmctl.recipe``); this does the same for the arguments of ``generate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.argument_checks import no_control
from dlmctl.control.base import Composite, Control
from dlmctl.control.warn_once import warn_once
from dlmctl.errors import RecipeError, UserError, did_you_mean
from dlmctl.generation.rounds import Rounds
from dlmctl.recipe.presets import PRESETS, PresetSettings
from dlmctl.recipe.python_settings import SettingsMapping, settings_from
from dlmctl.recipe.recipe import RANK_BY_FLUENCY, UNUSED_SECOND_SCORER
from dlmctl.recipe.settings import Criterion, Guidance, Quota, SamplerSettings, Until

# Most texts and candidates of a call that keeps all of them; more go to files, shard by shard.
MAX_IN_MEMORY = 100_000


def read_rounds(
    samples: Any,
    seed: Any,
    until: Until | SettingsMapping,
    candidates: Any,
    rank_by: Criterion | Sequence[Criterion],
    second_scorer: Any,
) -> Rounds:
    """Read the arguments of ``generate`` that determine the rounds.

    Raises:
        UserError: one of them is invalid; the message says what would be right.
    """
    until_settings = Until(max_rounds=1) if until is None else settings_from(until, Until(), "until")
    criteria = read_criteria(rank_by)
    if second_scorer is not None and "fluency" not in criteria:
        raise UserError(UNUSED_SECOND_SCORER, where="second_scorer", remedy=RANK_BY_FLUENCY)
    return Rounds(
        sample_numbers(samples),
        whole("seed", seed, least=0),
        until_settings,
        whole("candidates", candidates),
        criteria,
        second_scorer=None if second_scorer is None else str(second_scorer),
    )


def sample_numbers(samples: Any) -> Sequence[int]:
    """The numbers of the samples: the first ``samples``, or those that it lists.

    Raises:
        UserError: it is neither a number from 1 on nor a list of numbers from 0 on.
    """
    numbers = _listed_numbers("samples", samples)
    return range(whole("samples", samples)) if numbers is None else numbers


def read_traced(trace: Any, numbers: Sequence[int]) -> Sequence[int]:
    """The numbers of the samples to trace: all for True, the first ``trace``, or those listed, which may belong to
    other parts of the run.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(trace, bool):
        return numbers if trace else ()
    listed = _listed_numbers("trace", trace)
    return numbers[: whole("trace", trace, least=0)] if listed is None else listed


def require_room(texts: int, candidates: Any, where: str = "samples") -> None:
    """Raise RecipeError if the texts of a call, with their candidates, do not fit into memory."""
    if texts * (int(candidates) if isinstance(candidates, Integral) else 1) > MAX_IN_MEMORY:
        what = f"more than {MAX_IN_MEMORY:,} texts and candidates do not fit into memory."
        remedy = (
            "Write them to a folder, `dlmctl generate --out FOLDER/`; in Python, `model.stream` yields them one by one."
        )
        raise RecipeError(what if where == "samples" else f"samples: {what}", where=where, remedy=remedy)


def check_traced(trace: Any, numbers: Sequence[int]) -> None:
    """Raise UserError if a sample to be traced is not among the whole run's ``numbers``."""
    unknown = sorted(set(read_traced(trace, numbers)) - set(numbers))
    if unknown:
        raise UserError(f"there is no sample {unknown[0]} in this run.", where="trace", remedy="They count from 0.")


def _listed_numbers(name: str, value: Any) -> list[int] | None:
    """The sample numbers in a list or an array; None for any other value."""
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray) or getattr(value, "ndim", 1) == 0:
        return None
    return [whole(name, number, least=0) for number in value]


def read_extent(quota: Quota | SettingsMapping | bool, unique: Any) -> tuple[Quota | None, bool]:
    """Read the quota, None without one, and whether texts must be unique.

    Raises:
        UserError: one of them is not True or False, or a setting of the quota is wrong.
    """
    yes_or_no("unique", unique)
    if isinstance(quota, bool):
        return Quota() if quota else None, unique
    return None if quota is None else settings_from(quota, Quota(), "quota"), unique


def yes_or_no(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(value, bool):
        raise UserError(f"must be True or False, not {value!r}.", where=name)
    return value


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """Return ``value`` as an int of at least ``least``.

    Raises:
        UserError: it is not a whole number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"must be a whole number of {least} or more, not {value!r}.", where=name)
    return int(value)  # may be a numpy integer


def read_criteria(rank_by: Any) -> list[Criterion]:
    """Read the criteria by which the best draw is chosen: a list, or a single name.

    Raises:
        UserError: there is no criterion, or one is unknown.
    """
    known = list(get_args(Criterion))
    listed = [rank_by] if isinstance(rank_by, str) else rank_by
    criteria: list[Any] = list(listed) if isinstance(listed, Sequence) else []
    if not criteria:
        raise UserError(
            f"must be one or more of {', '.join(known)}, not {rank_by!r}.", where="rank_by", remedy='E.g. ["mbr"].'
        )
    for name in criteria:
        if name not in known:
            raise UserError(f"there is no criterion {name!r}.", where="rank_by", remedy=did_you_mean(str(name), known))
    return criteria


def check_arguments(control: Any, model: Any, preset: Any) -> None:
    """Raise UserError if the control, the model or the preset is not one."""
    _check_control(control)
    check_model(model)
    if preset not in list(PRESETS):
        raise UserError(
            f"there is no preset {preset!r}.", where="preset", remedy=did_you_mean(str(preset), list(PRESETS))
        )


def warn_of_unused_sets(control: Any, samples: Any) -> None:
    """Warn if ``each`` has parameters for more texts than are drawn, as if their number were left to the default."""
    if isinstance(control, Composite):
        for part in control.parts:
            warn_of_unused_sets(part, samples)
    elif isinstance(samples, Integral) and len(getattr(control, "sets", ())) > samples:
        sets = f"{type(control).__name__}.each has parameters for {len(control.sets)} texts"
        warn_once(f"{sets}, of which {samples} are drawn; samples={len(control.sets)} draws all.")


def check_model(model: Any) -> None:
    """Raise UserError if it is not a model or the name of one."""
    if not isinstance(model, str | Path | Pretrained):
        remedy = 'Give a name, a folder, or what dlmctl.load("e2e") returns.'
        raise UserError(f"{type(model).__name__!r} is not a model.", where="model", remedy=remedy)


def _check_control(control: Any) -> None:
    if control is not None and not (isinstance(control, Control) and hasattr(control, "sets")):
        raise no_control(control, where="control")


def read_settings(
    preset_settings: PresetSettings,
    sampler: SamplerSettings | SettingsMapping,
    guidance: Guidance | SettingsMapping,
    *,
    deterministic: Any = False,
) -> PresetSettings:
    """Read the settings of the sampler and the guidance; the preset's are the defaults.

    Args:
        preset_settings: the settings of the preset.
        sampler, guidance: a mapping overrides settings of the preset, as in a recipe; a settings object replaces them.
        deterministic: overrides the sampler's setting, too.

    Raises:
        UserError: a setting is unknown, or its value is invalid.
    """
    sampler_settings = settings_from(sampler, preset_settings.sampler, "sampler")
    if yes_or_no("deterministic", deterministic):
        sampler_settings = SamplerSettings.model_validate({**sampler_settings.model_dump(), "deterministic": True})
    return PresetSettings(sampler_settings, settings_from(guidance, preset_settings.guidance, "guidance"))
