"""Another layout for a text whose first one no text fits: other sizes of blanks, then other numbers of words.

Each control says for itself which numbers of words it can have. One that is possible for each alone may be so for no
text that is all of it: ``The cat ___{1,9} .`` with `in the garden` somewhere has six words or more. What is possible
together is found out by trying, and only where the layout that was drawn first fits nothing, so a draw that can go on
with that one has the same text as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch

from dlmctl.control.automata import TooLarge
from dlmctl.control.base import All
from dlmctl.control.branches import Branch, lengths_left
from dlmctl.control.combined import parts_of, prepare_all
from dlmctl.control.prepared import has_own
from dlmctl.diffusion.layout import SPECIAL, Layout, positions_for
from dlmctl.diffusion.noise import LAYOUT, Draw
from dlmctl.errors import Unfit, Unmet
from dlmctl.sampling.batch_layout import batch_context, feasible, layout_of, on_positions
from dlmctl.sampling.feasible import SHUTS_OUT
from dlmctl.sampling.particles import expanded
from dlmctl.sampling.plan import Plan
from dlmctl.text.tokenizer import HuggingFaceTokenizer


def fitting_layout(plan: Plan, draw: Draw, lengths: Sequence[float] | None = None) -> Layout:
    """The layout of a text that all its controls together can have: the first of its draw that is one.

    Args:
        lengths: as of ``layout_of``.

    Raises:
        Unfit: none is; the error is that of the first.
        RecipeError: as of ``layout_of``, or what is asked is impossible whatever the layout.
    """
    first = layout_of(plan, draw, lengths)
    if (fault := _fault_of(plan, draw, first)) is None:
        return first
    others = list(_others(plan, draw, lengths, first))
    exact = _of_exact(plan, draw, first)
    with suppress(Unmet):  # of a text of any layout
        for layout in (first, *others):
            if (found := _with_sizes(exact, draw, layout)) is not None:
                return found
    remedy = f"{fault.remedy or ''} No other number of words has one either.".strip() if others else fault.remedy
    raise Unfit(fault.what, where=fault.where, remedy=remedy)


def _of_exact(plan: Plan, draw: Draw, layout: Layout) -> Plan:
    """The plan with those of its controls alone that can shut a text out, so that trying takes less time."""
    assert plan.guide is not None  # else nothing stood against the layout
    prepared = prepare_all(plan.guide, batch_context(plan, [(draw, layout)])).parts
    pairs = zip(parts_of(plan.guide), prepared, strict=True)
    exact = tuple(one for one, part in pairs if has_own(part.prepared, *SHUTS_OUT))
    return plan._replace(way=Branch((), All(exact), exact))


def _with_sizes(plan: Plan, draw: Draw, layout: Layout) -> Layout | None:
    """The layout with the sizes of blanks that are drawn, or with open ones, as there is a text; None if there is none.

    Raises:
        Unmet: there is none whatever the layout.
    """
    try:
        # What has room within sizes that are drawn has room within open ones too.
        if _fault_of(plan, draw, layout._replace(sizes_open=True)) is not None:
            return None
    except TooLarge:
        return layout if _fault_of(plan, draw, layout) is None else None
    return layout._replace(sizes_open=_fault_of(plan, draw, layout) is not None)


def _fault_of(plan: Plan, draw: Draw, layout: Layout) -> Unfit | None:
    """What stands against a layout. Raises a RecipeError if that is nothing that another one may help."""
    try:
        feasible(plan, expanded([(draw, layout)], plan.sampler.particles))
    except Unfit as error:
        return error
    return None


def _others(plan: Plan, draw: Draw, lengths: Sequence[float] | None, first: Layout) -> Iterator[Layout]:
    """The layouts of all other numbers of words: first, in an order drawn by how often they come, those that do come,
    then the others, the nearest first. None where the model chooses; of tokens, ``layout_of`` knows which are possible.
    """
    config, guide, words = plan.pretrained.model.config, plan.guide, first.words
    if words is None or guide is None or isinstance(plan.pretrained.tokenizer, HuggingFaceTokenizer):
        return
    most = config.length - SPECIAL
    known = dict(enumerate(lengths or guide.lengths_of(draw.sample, most) or config.sentence_lengths))
    left = set(np.flatnonzero(lengths_left(guide, draw.sample, most)).tolist()) - {0, words}
    usual = sorted(number for number in left if known.get(number, 0) > 0)
    drawn: list[int] = []
    if usual:
        chances = torch.tensor([known[number] for number in usual], dtype=torch.float64)
        drawn = torch.multinomial(chances, len(usual), generator=draw.generator(LAYOUT)).tolist()
    nearest = sorted(left.difference(usual), key=lambda number: (abs(number - words), number))
    for number in (*(usual[at] for at in drawn), *nearest):
        yield on_positions(plan, Layout(positions_for(number, config.length), number))
