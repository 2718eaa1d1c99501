"""Find out before the first step which draws are possible, and change the branch or layout of those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlmctl.control.branches import has_choices
from dlmctl.control.warn_once import warn_once
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import RecipeError, UnsatisfiableError
from dlmctl.sampling.batch_layout import feasible, layout_of
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.branches import first_possible, plans_of_branches
from dlmctl.sampling.masked_draw import require_steps
from dlmctl.sampling.particles import expanded
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.redraw import fitting_layout

# Token scores per tensor, 512 MiB in float32; 6 such tensors exist at once, under guidance 14.
MAX_SCORES = 1 << 27
# Texts that are laid out together to check whether they can be drawn.
MAX_CHECKED = 32

Lengths = Mapping[int, Sequence[float]]
"""The weight of each number of words, by sample; see ``layout_of``."""
BranchRow = tuple[Plan, tuple[Draw, Layout]]
"""A draw with its layout, and the plan with its branch."""


def max_texts(plan: Plan, positions: int) -> int:
    """The most texts in a batch: as many as requested, or as the memory allows for the scores of a large vocabulary."""
    model, rows = plan.pretrained.model, plan.batch_size
    if isinstance(model, TokenLM | CanvasLM):
        rows = min(rows, MAX_SCORES // (positions * model.config.vocab_size))
    return max(1, rows // plan.sampler.particles)


def check_branches(plan: Plan, draw: Draw) -> None:
    """Try each branch of an `any` alone, before any choice is made and anything is drawn.

    Warns of a branch that no text can satisfy; the choice of branches then skips it.

    Raises:
        RecipeError: a branch has a fault, such as a word that the model does not know; always reported, whatever the
            draws choose.
    """
    for branch_plan in plans_of_branches(plan) if draw.attempt == 0 else ():
        try:
            fitting_layout(branch_plan, draw)
        except UnsatisfiableError as error:
            warn_once(f"a control under `any` is left out: {error}")


def possible_layouts(plan: Plan, branch_plan: Plan, draws: Sequence[Draw], lengths: Lengths) -> list[BranchRow]:
    """The layouts of draws of one branch; a draw that is impossible there gets another branch or another layout.

    Args:
        branch_plan: the plan with their branch.

    Raises:
        RecipeError: a draw is impossible in every branch and layout.
    """
    faults = _faults(branch_plan, draws, lengths)
    return [
        _possible(plan, draw, lengths)
        if draw in faults
        else (branch_plan, (draw, layout_of(branch_plan, draw, lengths.get(draw.sample))))
        for draw in draws
    ]


def impossible_draws(plan: Plan, draws: Sequence[Draw]) -> dict[int, RecipeError]:
    """The error of each sample that cannot be drawn, by sample; nothing is drawn."""
    errors: dict[int, RecipeError] = {}
    has_choice = plan.control is not None and has_choices(plan.control)
    # With a choice of branches, each draw has its own.
    for draw in draws if has_choice else sorted(_faults(plan, draws, {})):
        try:
            check_branches(plan, draw)
            _, (_, layout) = _possible(plan, draw, {})
            require_steps(plan, draw, layout)
        except RecipeError as error:
            errors[draw.sample] = error
    return errors


def _possible(plan: Plan, draw: Draw, lengths: Lengths) -> BranchRow:
    """A draw in the first branch that is possible with its first layout; if none is, in the first branch that is
    possible with another.

    Raises:
        RecipeError: that of the draw's first branch, if no branch is possible.
    """
    weights = lengths.get(draw.sample)

    def with_first_layout(branch_plan: Plan) -> BranchRow:
        row = draw, layout_of(branch_plan, draw, weights)
        feasible(branch_plan, expanded([row], branch_plan.sampler.particles))
        return branch_plan, row

    try:
        return first_possible(plan, draw, with_first_layout)
    except RecipeError:
        return first_possible(
            plan, draw, lambda branch_plan: (branch_plan, (draw, fitting_layout(branch_plan, draw, weights)))
        )


def _faults(plan: Plan, draws: Sequence[Draw], lengths: Lengths) -> dict[Draw, RecipeError]:
    """The error of each draw that is impossible with its first layout; checked in batches, as most are possible."""
    faults: dict[Draw, RecipeError] = {}
    rows: Batch = []
    for draw in draws:
        try:
            layout = layout_of(plan, draw, lengths.get(draw.sample))
            require_steps(plan, draw, layout)
            rows.append((draw, layout))
        except RecipeError as error:
            faults[draw] = error
    rows.sort(key=lambda row: row[1].positions)
    batch_size = min(MAX_CHECKED, max_texts(plan, rows[-1][1].positions)) if rows else 1
    for batch in (rows[start : start + batch_size] for start in range(0, len(rows), batch_size)):
        if _fault_of(plan, batch) is not None:  # at least one of them has a fault
            row_faults = {row[0]: _fault_of(plan, [row]) for row in batch}
            faults |= {draw: error for draw, error in row_faults.items() if error is not None}
    return faults


def _fault_of(plan: Plan, rows: Batch) -> RecipeError | None:
    try:
        feasible(plan, expanded(rows, plan.sampler.particles))
    except RecipeError as error:
        return error
    return None
