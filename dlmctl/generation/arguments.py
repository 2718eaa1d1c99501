"""What a caller in Python gives, checked before anything is loaded: each fault is one message that says what is right.

Recipes are checked where they are read (``dlmctl.recipe``); this is the same for the arguments of ``generate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.errors import UserError, nearest
from dlmctl.generation.rounds import Rounds
from dlmctl.recipe.presets import PRESETS, Chosen
from dlmctl.recipe.python_settings import Given, settings_from
from dlmctl.recipe.recipe import RANK_BY_FLUENCY, SECOND_IDLE
from dlmctl.recipe.settings import Criterion, Guidance, Quota, SamplerSettings, Until


def read_rounds(
    samples: Any,
    seed: Any,
    until: Until | Given,
    candidates: Any,
    rank_by: Criterion | Sequence[Criterion],
    second_scorer: Any,
) -> Rounds:
    """The rounds that the arguments of ``generate`` ask for.

    Raises:
        UserError: one of them cannot be; the message says what would be right.
    """
    found = Until(max_rounds=1) if until is None else settings_from(until, Until(), "until")
    criteria = read_criteria(rank_by)
    if second_scorer is not None and "fluency" not in criteria:
        raise UserError(SECOND_IDLE, where="second_scorer", remedy=RANK_BY_FLUENCY)
    return Rounds(
        sample_numbers(samples),
        whole("seed", seed, least=0),
        found,
        whole("candidates", candidates),
        criteria,
        second_scorer=None if second_scorer is None else str(second_scorer),
    )


def sample_numbers(samples: Any) -> Sequence[int]:
    """The numbers of the samples: ``samples`` of them, or those that it lists.

    Raises:
        UserError: it is neither a number from 1 on nor a list of numbers from 0 on.
    """
    numbers = _numbers("samples", samples)
    return range(whole("samples", samples)) if numbers is None else numbers


def read_traced(trace: Any, numbers: Sequence[int]) -> Sequence[int]:
    """The numbers of the samples whose steps are kept: all for True, the first so many, or those that are listed, which
    may be samples of other parts of the run.

    Raises:
        UserError: it is neither.
    """
    if isinstance(trace, bool):
        return numbers if trace else ()
    listed = _numbers("trace", trace)
    return numbers[: whole("trace", trace, least=0)] if listed is None else listed


def check_traced(trace: Any, numbers: Sequence[int]) -> None:
    """Raise UserError where a sample is to be traced that is none of the whole run's ``numbers``."""
    strange = sorted(set(read_traced(trace, numbers)) - set(numbers))
    if strange:
        raise UserError(f"there is no sample {strange[0]} in this run.", where="trace", remedy="They count from 0.")


def _numbers(name: str, given: Any) -> list[int] | None:
    """The numbers of samples that a list or an array holds; None of what is neither."""
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray) or getattr(given, "ndim", 1) == 0:
        return None
    return [whole(name, number, least=0) for number in given]


def read_extent(quota: Quota | Given | bool, unique: Any) -> tuple[Quota | None, bool]:
    """Whether to draw until enough texts pass, and whether they are to differ.

    Raises:
        UserError: one of them is neither yes nor no, or a setting of the quota is wrong.
    """
    yes_or_no("unique", unique)
    if isinstance(quota, bool):
        return Quota() if quota else None, unique
    return None if quota is None else settings_from(quota, Quota(), "quota"), unique


def yes_or_no(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(value, bool):
        raise UserError(f"must be True or False, not {value!r}.", where=name)
    return value


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number of at least ``least``.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UserError(f"must be a whole number of {least} or more, not {value!r}.", where=name)
    return int(value)  # numpy has whole numbers of its own


def read_criteria(rank_by: Any) -> list[Criterion]:
    """The criteria by which the best draw is chosen; one may stand without a list.

    Raises:
        UserError: there is none, or one is unknown.
    """
    known = list(get_args(Criterion))
    listed = [rank_by] if isinstance(rank_by, str) else rank_by
    given: list[Any] = list(listed) if isinstance(listed, Sequence) else []
    if not given:
        raise UserError(
            f"must be one or several of {', '.join(known)}, not {rank_by!r}.", where="rank_by", remedy='E.g. ["mbr"].'
        )
    for name in given:
        if name not in known:
            raise UserError(f"there is no criterion {name!r}.", where="rank_by", remedy=nearest(str(name), known))
    return given


def check_given(control: Any, model: Any, preset: Any) -> None:
    """Raise UserError where the control, the model or the name of the preset is none."""
    _check_control(control)
    if not isinstance(model, str | Path | Pretrained):
        remedy = 'Give a name, a folder, or what dlmctl.load("e2e") returns.'
        raise UserError(f"{type(model).__name__!r} is not a model.", where="model", remedy=remedy)
    if preset not in list(PRESETS):
        raise UserError(f"there is no preset {preset!r}.", where="preset", remedy=nearest(str(preset), list(PRESETS)))


def _check_control(control: Any) -> None:
    if control is None or isinstance(control, Control):
        return
    remedy = 'A control is an object such as Contains("pub"); several are joined by &, | and ~.'
    if isinstance(control, str):
        remedy += f" The recipe of that name, if there is one, runs by dlmctl.run({control!r})."
    elif isinstance(control, type) and issubclass(control, Control):
        remedy = f"Give it its parameters: {control.__name__}(...)."
    raise UserError(f"{control!r} is not a control.", where="control", remedy=remedy)


def read_settings(
    chosen: Chosen, sampler: SamplerSettings | Given, guidance: Guidance | Given, *, deterministic: Any = False
) -> Chosen:
    """The settings given, or where none are given those of the preset.

    Args:
        sampler, guidance: a mapping is laid over the preset's settings, as in a recipe; settings stand as they are.
        deterministic: laid over the sampler's settings too.

    Raises:
        UserError: a setting is unknown, or its value is not one that it can have.
    """
    found = settings_from(sampler, chosen.sampler, "sampler")
    if yes_or_no("deterministic", deterministic):
        found = SamplerSettings.model_validate({**found.model_dump(), "deterministic": True})
    return Chosen(found, settings_from(guidance, chosen.guidance, "guidance"))
