"""Groups of samples: which texts must differ from each other, and which share the attempts of a quota."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Composite, Control
from dlmctl.control.registry import find_control
from dlmctl.datasets.known_texts import known_texts
from dlmctl.errors import UserError
from dlmctl.generation.distinct import Distinct
from dlmctl.generation.ranking import ranks_by_scorer
from dlmctl.generation.rounds import Rounds
from dlmctl.recipe.recipe import COMBINATIONS, ControlSpec, Recipe, nested_specs
from dlmctl.recipe.settings import QUOTA_NEEDS_ALL, QUOTA_REMEDY, Quota, Until, accepts_failures


class SampleGroups(NamedTuple):
    """How the samples of a call belong to a longer run.

    Attributes:
        group: maps a sample to its row of targets; the run is one group if not given.
        distinct: the texts of the run so far, if none may be repeated.
        fluency: whether texts are scored if the model has a scorer.
    """

    group: Callable[[int], int] | None = None
    distinct: Distinct | None = None
    fluency: bool = True


SINGLE_GROUP = SampleGroups()
UNSCORED = SampleGroups(fluency=False)


def in_groups(
    rounds: Rounds,
    control: Control[Any] | None,
    pretrained: Pretrained,
    groups: SampleGroups,
    extent: tuple[Quota | None, bool],
    until_is_default: bool,
) -> Rounds:
    """Return the rounds with their groups, quota and record of distinct texts.

    Args:
        extent: the quota, if there is one, and whether no text may be repeated in the run.
        until_is_default: whether the caller did not set ``until``. With a quota, or a control that is met by rejection,
            a text is then good enough if it passes; where texts must only differ, if it is new.

    Raises:
        UserError: as ``require_passing``.
    """
    quota, unique = extent
    require_passing(quota, rounds.until)
    if until_is_default and (quota is not None or (control is not None and uses_rejection(control))):
        rounds = rounds._replace(until=Until())
    elif until_is_default and unique:
        rounds = rounds._replace(until=Until(satisfied=0.0))
    distinct = groups.distinct or distinct_of(pretrained, quota, unique=unique, group=groups.group)
    return rounds._replace(quota=quota, group=groups.group, distinct=distinct, fluency=groups.fluency)


def require_passing(quota: Quota | None, until: Until) -> None:
    """Check that a quota counts only texts that pass.

    Raises:
        UserError: ``until`` accepts texts that do not pass.
    """
    if accepts_failures(until, quota):
        raise UserError(QUOTA_NEEDS_ALL, where="until.satisfied", remedy=QUOTA_REMEDY)


def distinct_of(
    pretrained: Pretrained, quota: Quota | None, *, unique: bool, group: Callable[[int], int] | None = None
) -> Distinct | None:
    """The record of texts that must not be repeated, None if any may be. With ``unique``, all texts of a run must
    differ, also from the model's training text where that is known; with a quota, the texts of a ``group``."""
    if unique:
        return Distinct(known=known_texts(pretrained.folder))
    return None if quota is None else Distinct(group)


def uses_rejection(control: Control[Any]) -> bool:
    """Whether a control, or a part of it, is met by rejection sampling."""
    components = control.parts if isinstance(control, Composite) else []
    return control.by_rejection or any(map(uses_rejection, components))


def is_ranked_by_scorer(recipe: Recipe) -> bool:
    """Whether the scorer chooses among the draws of a text, of which ``unique`` and rejection make several."""
    until = recipe.until
    if until is None and (recipe.unique or any(map(_is_met_by_rejection, nested_specs(recipe.control_specs())))):
        until = Until()
    return ranks_by_scorer(recipe.rank_by, recipe.candidates, until, recipe.quota)


def _is_met_by_rejection(spec: ControlSpec) -> bool:
    if spec.control is not None:
        return uses_rejection(spec.control)
    return spec.name not in COMBINATIONS and find_control(spec.name).by_rejection
