"""Another layout for a draw whose first layout no text fits: other sizes of blanks, then other numbers of words.

Each control states by itself which numbers of words it allows. A number that each allows may still be impossible for
all together: ``The cat ___{1,9} .`` with `in the garden` somewhere has six words or more. What is possible together is
found by trying, and only if no text fits the first layout, so that all other draws keep their texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch

from dlmctl.control.automata import TooLarge
from dlmctl.control.base import All
from dlmctl.control.branches import Branch, possible_word_counts
from dlmctl.control.combined import parts_of, prepare_all
from dlmctl.control.prepared import overrides
from dlmctl.diffusion.layout import SPECIAL, Layout, positions_for
from dlmctl.diffusion.noise import LAYOUT, Draw
from dlmctl.errors import LayoutError, UnsatisfiableError
from dlmctl.sampling.batch_layout import batch_context, feasible, layout_of, on_positions
from dlmctl.sampling.feasible import EXCLUDING_METHODS
from dlmctl.sampling.particles import expanded
from dlmctl.sampling.plan import Plan
from dlmctl.text.tokenizer import HuggingFaceTokenizer


def fitting_layout(plan: Plan, draw: Draw, lengths: Sequence[float] | None = None) -> Layout:
    """The first layout of a draw that all controls together allow.

    Args:
        lengths: as for ``layout_of``.

    Raises:
        LayoutError: there is none, or none was found and some are too large to try; the error is that of the first
            layout.
        RecipeError: as for ``layout_of``, or the controls are impossible whatever the layout.
    """
    first = layout_of(plan, draw, lengths)
    if (fault := _fault_of(plan, draw, first)) is None:
        return first
    others = list(_others(plan, draw, lengths, first))
    excluding_plan = _excluding_plan(plan, draw, first)
    untried: TooLarge | None = None
    with suppress(UnsatisfiableError):  # impossible in any layout
        for layout in (first, *others):
            try:
                if (fitting := _with_sizes(excluding_plan, draw, layout)) is not None:
                    return fitting
            except TooLarge as error:
                untried = error
    if untried is not None:
        what = f"{fault.what.rstrip('.')}, as drawn; whether another one does is too much to find out: {untried.what}"
        remedy = f"Another seed may draw one that does. {untried.remedy or ''}".strip()
        raise LayoutError(what, where=fault.where, remedy=remedy)
    no_others = " No other number of words has one either." if others else ""
    raise LayoutError(fault.what, where=fault.where, remedy=f"{fault.remedy or ''}{no_others}".strip() or None)


def _excluding_plan(plan: Plan, draw: Draw, layout: Layout) -> Plan:
    """The plan with only the controls that can exclude texts, so that trying takes less time."""
    assert plan.guide is not None  # else the layout had no fault
    prepared = prepare_all(plan.guide, batch_context(plan, [(draw, layout)])).parts
    pairs = zip(parts_of(plan.guide), prepared, strict=True)
    controls = tuple(control for control, part in pairs if overrides(part.prepared, *EXCLUDING_METHODS))
    return plan._replace(branch=Branch((), All(controls), controls))


def _with_sizes(plan: Plan, draw: Draw, layout: Layout) -> Layout | None:
    """The layout with the drawn sizes of blanks, or else with open ones; None if no text fits either.

    Raises:
        UnsatisfiableError: no text fits, whatever the layout.
        TooLarge: no text fits drawn sizes, and open ones are too large to try.
    """
    try:
        # A text that fits drawn sizes also fits open ones.
        if _fault_of(plan, draw, layout._replace(sizes_open=True)) is not None:
            return None
    except TooLarge:
        if _fault_of(plan, draw, layout) is not None:
            raise
        return layout
    return layout._replace(sizes_open=_fault_of(plan, draw, layout) is not None)


def _fault_of(plan: Plan, draw: Draw, layout: Layout) -> LayoutError | None:
    """The reason why no text fits a layout, if so. Raises a RecipeError if no other layout can help."""
    try:
        feasible(plan, expanded([(draw, layout)], plan.sampler.particles))
    except LayoutError as error:
        return error
    return None


def _others(plan: Plan, draw: Draw, lengths: Sequence[float] | None, first: Layout) -> Iterator[Layout]:
    """The layouts of all other numbers of words: first those with a weight, in an order drawn by the weights, then the
    others, nearest first. There are none if the model chooses the number of words, nor for models over tokens, where
    ``layout_of`` knows which are possible.
    """
    config, guide, first_count = plan.pretrained.model.config, plan.guide, first.words
    if first_count is None or guide is None or isinstance(plan.pretrained.tokenizer, HuggingFaceTokenizer):
        return
    max_words = config.length - SPECIAL
    weights = dict(enumerate(lengths or guide.lengths_of(draw.sample, max_words) or config.sentence_lengths))
    counts = set(np.flatnonzero(possible_word_counts(guide, draw.sample, max_words)).tolist()) - {0, first_count}
    weighted = sorted(count for count in counts if weights.get(count, 0) > 0)
    order: list[int] = []
    if weighted:
        chances = torch.tensor([weights[count] for count in weighted], dtype=torch.float64)
        order = torch.multinomial(chances, len(weighted), generator=draw.generator(LAYOUT)).tolist()
    nearest = sorted(counts.difference(weighted), key=lambda count: (abs(count - first_count), count))
    for count in (*(weighted[at] for at in order), *nearest):
        yield on_positions(plan, Layout(positions_for(count, config.length), count))
