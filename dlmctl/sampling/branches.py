"""The branches that draws take: draws in the same branch are guided by the same controls and can share a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dlmctl.control.branches import (
    Branch,
    any_branches,
    candidate_branches,
    excludes_lengths,
    has_choices,
    possible_word_counts,
)
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UnsatisfiableError
from dlmctl.sampling.plan import Plan

T = TypeVar("T")


def plans_for(plan: Plan, draw: Draw) -> Iterator[Plan]:
    """Yield the plan with each branch open to a draw, its first choice first."""
    if plan.control is None or plan.branch is not None or not has_choices(plan.control):
        yield plan
        return
    for branch in candidate_branches(plan.control, draw, _max_words(plan)):
        yield plan._replace(branch=branch)


def first_possible(plan: Plan, draw: Draw, use: Callable[[Plan], T]) -> T:
    """The result of ``use`` for the first branch of a draw for which it raises no RecipeError.

    Raises:
        RecipeError: that of the draw's first branch, if no branch is possible.
    """
    first_error: RecipeError | None = None
    for branch_plan in plans_for(plan, draw):
        try:
            return use(branch_plan)
        except RecipeError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def group_by_branch(pairs: Sequence[tuple[Plan, T]]) -> list[tuple[Plan, list[T]]]:
    """Items such as draws, grouped by the branch of their plans."""
    plans: dict[tuple[int, ...], Plan] = {}
    groups: dict[tuple[int, ...], list[T]] = defaultdict(list)
    for plan, item in pairs:
        picks = () if plan.branch is None else plan.branch.picks
        plans.setdefault(picks, plan)
        groups[picks].append(item)
    return [(plans[picks], items) for picks, items in groups.items()]


def plans_of_branches(plan: Plan) -> list[Plan]:
    """The plan with each branch alone, whichever the draws choose, so that a fault in one is always reported."""
    controls = any_branches(plan.control) if plan.control is not None else ()
    return [plan._replace(branch=Branch((), control, (control,))) for control in controls]


def word_counts(
    plan: Plan, sample: int, count_range: tuple[int, int] | None, weights: Sequence[float] | None
) -> tuple[tuple[int, int] | None, Sequence[float] | None]:
    """The fewest and most words of a sample and the weight of each word count, without those that `not` excludes.

    Raises:
        UnsatisfiableError: no word count is left.
    """
    if plan.guide is None or not excludes_lengths(plan.guide):
        return count_range, weights
    max_words = _max_words(plan)
    low, high = count_range or (1, max_words)
    if low > min(high, max_words):
        return count_range, weights  # the layout refuses it
    is_possible = possible_word_counts(plan.guide, sample, max_words)
    counts = [count for count in range(max(low, 1), min(high, max_words) + 1) if is_possible[count]]
    if not counts:
        what = "the controls contradict each other: they leave no number of words."
        raise UnsatisfiableError(what, where=f"sample {sample}")
    usual = dict(enumerate(weights or plan.pretrained.model.config.sentence_lengths))
    known = any(usual.get(count, 0) for count in counts)
    left = [float(usual.get(count, 0) if known else 1) * bool(is_possible[count]) for count in range(counts[-1] + 1)]
    return (counts[0], counts[-1]), left


def _max_words(plan: Plan) -> int:
    return int(plan.pretrained.model.config.length) - SPECIAL
