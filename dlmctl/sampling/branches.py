"""Draws by the ways that they go: those of one way are guided by the same controls, and so can share a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dlmctl.control.branches import Branch, branches, leaves_open, lengths_left, shuts_out, ways
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, Unmet
from dlmctl.sampling.plan import Plan

T = TypeVar("T")


def plans_for(plan: Plan, draw: Draw) -> Iterator[Plan]:
    """The plan on each way of a draw, the one that it goes first."""
    if plan.control is None or plan.way is not None or not leaves_open(plan.control):
        yield plan
        return
    for way in ways(plan.control, draw, _most(plan)):
        yield plan._replace(way=way)


def first_possible(plan: Plan, draw: Draw, use: Callable[[Plan], T]) -> T:
    """What ``use`` gives for the first way of a draw on which it raises no RecipeError.

    Raises:
        RecipeError: of the way that the draw goes first, if none is possible.
    """
    first: RecipeError | None = None
    for own in plans_for(plan, draw):
        try:
            return use(own)
        except RecipeError as error:
            first = first or error
    assert first is not None
    raise first


def by_way(pairs: Sequence[tuple[Plan, T]]) -> list[tuple[Plan, list[T]]]:
    """What goes the same way, such as draws, with the plan on it."""
    plans: dict[tuple[int, ...], Plan] = {}
    found: dict[tuple[int, ...], list[T]] = defaultdict(list)
    for plan, one in pairs:
        picks = () if plan.way is None else plan.way.picks
        plans.setdefault(picks, plan)
        found[picks].append(one)
    return [(plans[picks], those) for picks, those in found.items()]


def plans_of_branches(plan: Plan) -> list[Plan]:
    """The plan for each branch alone, whichever the draws choose: a fault of one is told, not left to chance."""
    alone = branches(plan.control) if plan.control is not None else ()
    return [plan._replace(way=Branch((), branch, (branch,))) for branch in alone]


def numbers_of_words(
    plan: Plan, sample: int, wanted: tuple[int, int] | None, weights: Sequence[float] | None
) -> tuple[tuple[int, int] | None, Sequence[float] | None]:
    """Fewest and most words of a sample and the weights of each number of words, without those that `not` shuts out.

    Raises:
        Unmet: it leaves none.
    """
    if plan.guide is None or not shuts_out(plan.guide):
        return wanted, weights
    most = _most(plan)
    low, high = wanted or (1, most)
    if low > min(high, most):
        return wanted, weights  # which the layout refuses
    left = lengths_left(plan.guide, sample, most)
    kept = [number for number in range(max(low, 1), min(high, most) + 1) if left[number]]
    if not kept:
        what = "the controls contradict each other: they leave no number of words."
        raise Unmet(what, where=f"sample {sample}")
    usual = dict(enumerate(weights or plan.pretrained.model.config.sentence_lengths))
    known = any(usual.get(number, 0) for number in kept)
    found = [float(usual.get(number, 0) if known else 1) * bool(left[number]) for number in range(kept[-1] + 1)]
    return (kept[0], kept[-1]), found


def _most(plan: Plan) -> int:
    return int(plan.pretrained.model.config.length) - SPECIAL
