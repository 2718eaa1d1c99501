"""Which draws can be had: found out before the first step, and those that cannot go on as they were drawn settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlmctl.control.branches import leaves_open
from dlmctl.control.warn_once import warn_once
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import RecipeError, Unmet
from dlmctl.sampling.batch_layout import feasible, layout_of
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.branches import first_possible, plans_of_branches
from dlmctl.sampling.masked_draw import require_steps
from dlmctl.sampling.particles import expanded
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.redraw import fitting_layout

# Scores of tokens in a tensor, of which 6 are held at once and under guidance 14: 512 MiB in float32.
MOST_SCORES = 1 << 27
# Texts that are laid out together to see whether they can be drawn.
MOST_TRIED = 32

Lengths = Mapping[int, Sequence[float]]
"""Of samples the weights of each number of words; see ``layout_of``."""
OnWay = tuple[Plan, tuple[Draw, Layout]]
"""A draw as it is laid out, with the plan on its way."""


def most_texts(plan: Plan, positions: int) -> int:
    """Texts of a batch: as many as asked for, but no more than the scores of a large vocabulary leave memory for."""
    model, rows = plan.pretrained.model, plan.batch_size
    if isinstance(model, TokenLM | CanvasLM):
        rows = min(rows, MOST_SCORES // (positions * model.config.vocab_size))
    return max(1, rows // plan.sampler.particles)


def check_branches(plan: Plan, draw: Draw) -> None:
    """Try each branch of an `any` alone, before any choice is made and anything is drawn.

    One that no text can be is told, and left out by whoever chooses.

    Raises:
        RecipeError: there is a fault in one, such as a word that the model does not know: that is not left to chance.
    """
    for own in plans_of_branches(plan) if draw.attempt == 0 else ():
        try:
            fitting_layout(own, draw)
        except Unmet as error:
            warn_once(f"a control under `any` is left out: {error}")


def settled(plan: Plan, own: Plan, draws: Sequence[Draw], lengths: Lengths) -> list[OnWay]:
    """Draws of one way as they can be had: those for which that is impossible another way, or laid out anew.

    Args:
        own: the plan on their way.

    Raises:
        RecipeError: a draw cannot be had at all.
    """
    faults = _faults(own, draws, lengths)
    return [
        _possible(plan, draw, lengths)
        if draw in faults
        else (own, (draw, layout_of(own, draw, lengths.get(draw.sample))))
        for draw in draws
    ]


def impossible(plan: Plan, draws: Sequence[Draw]) -> dict[int, RecipeError]:
    """What stands against each sample that cannot be drawn, by sample; nothing is drawn."""
    found: dict[int, RecipeError] = {}
    chooses = plan.control is not None and leaves_open(plan.control)
    # Where there is a choice, each goes a way of its own.
    for draw in draws if chooses else sorted(_faults(plan, draws, {})):
        try:
            check_branches(plan, draw)
            _, (_, layout) = _possible(plan, draw, {})
            require_steps(plan.sampler, layout)
        except RecipeError as error:
            found[draw.sample] = error
    return found


def _possible(plan: Plan, draw: Draw, lengths: Lengths) -> OnWay:
    """A draw on its first way that is possible as it is laid out first; if none is, on the first that is otherwise.

    Raises:
        RecipeError: of the way that the draw goes first, if none is possible.
    """
    weights = lengths.get(draw.sample)

    def as_drawn(own: Plan) -> OnWay:
        row = draw, layout_of(own, draw, weights)
        feasible(own, expanded([row], own.sampler.particles))
        return own, row

    try:
        return first_possible(plan, draw, as_drawn)
    except RecipeError:
        return first_possible(plan, draw, lambda own: (own, (draw, fitting_layout(own, draw, weights))))


def _faults(plan: Plan, draws: Sequence[Draw], lengths: Lengths) -> dict[Draw, RecipeError]:
    """What stands against each draw as it is laid out first; tried in batches, as most have no fault."""
    found: dict[Draw, RecipeError] = {}
    rows: Batch = []
    for draw in draws:
        try:
            layout = layout_of(plan, draw, lengths.get(draw.sample))
            require_steps(plan.sampler, layout)
            rows.append((draw, layout))
        except RecipeError as error:
            found[draw] = error
    rows.sort(key=lambda row: row[1].positions)
    most = min(MOST_TRIED, most_texts(plan, rows[-1][1].positions)) if rows else 1
    for some in (rows[at : at + most] for at in range(0, len(rows), most)):
        if _fault_of(plan, some) is not None:  # somewhere among them
            alone = {row[0]: _fault_of(plan, [row]) for row in some}
            found |= {draw: error for draw, error in alone.items() if error is not None}
    return found


def _fault_of(plan: Plan, rows: Batch) -> RecipeError | None:
    try:
        feasible(plan, expanded(rows, plan.sampler.particles))
    except RecipeError as error:
        return error
    return None
