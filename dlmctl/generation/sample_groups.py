"""What the samples of one call share with others: who must differ from whom, whose attempts are counted together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Composite, Control
from dlmctl.datasets.known_texts import known_texts
from dlmctl.errors import UserError
from dlmctl.generation.distinct import Distinct
from dlmctl.generation.rounds import Rounds
from dlmctl.recipe.settings import QUOTA_ALONE, QUOTA_PASSES, Quota, Until, weakens


class SampleGroups(NamedTuple):
    """The others of a longer run.

    Attributes:
        group: of a sample, the row of targets that it belongs to; the run is one group if not given.
        distinct: the texts of the run so far, where none may come twice.
        fluency: whether texts are scored where the model has a scorer.
    """

    group: Callable[[int], int] | None = None
    distinct: Distinct | None = None
    fluency: bool = True


ALONE = SampleGroups()
UNSCORED = SampleGroups(fluency=False)


def with_company(
    rounds: Rounds,
    control: Control[Any] | None,
    pretrained: Pretrained,
    company: SampleGroups,
    extent: tuple[Quota | None, bool],
    untold: bool,
) -> Rounds:
    """The rounds with what else they depend on.

    Args:
        extent: the quota, if there is one, and whether no text may come twice in the run.
        untold: whether nothing was said of when a text is good enough: with a quota, or a control that is met by
            rejection, it is when it passes, and where texts must differ, when it is new.

    Raises:
        UserError: as ``require_passing``.
    """
    quota, unique = extent
    require_passing(quota, rounds.until)
    if untold and (quota is not None or (control is not None and rejects(control))):
        rounds = rounds._replace(until=Until())
    elif untold and unique:
        rounds = rounds._replace(until=Until(satisfied=0.0))
    distinct = company.distinct or distinct_of(pretrained, quota, unique=unique, group=company.group)
    return rounds._replace(quota=quota, group=company.group, distinct=distinct, fluency=company.fluency)


def require_passing(quota: Quota | None, until: Until) -> None:
    """Check that a quota is not met by texts that do not pass.

    Raises:
        UserError: ``until`` is content with such.
    """
    if weakens(until, quota):
        raise UserError(QUOTA_PASSES, where="until.satisfied", remedy=QUOTA_ALONE)


def distinct_of(
    pretrained: Pretrained, quota: Quota | None, *, unique: bool, group: Callable[[int], int] | None = None
) -> Distinct | None:
    """What tells texts apart, None where they may be alike: those of a run, also from the training text of its model
    where that is known, if they are to be ``unique``; with a quota those of a ``group``."""
    if unique:
        return Distinct(known=known_texts(pretrained.folder))
    return None if quota is None else Distinct(group)


def rejects(control: Control[Any]) -> bool:
    """Whether a control, or a part of it, is met by drawing again."""
    parts = control.parts if isinstance(control, Composite) else []
    return control.by_rejection or any(map(rejects, parts))
