"""Draws laid out for the sampler: how many positions each text has, and the controls ready for a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmctl.control.automata import ExactTokens, merged
from dlmctl.control.base import Control
from dlmctl.control.combined import prepare_all
from dlmctl.control.prepared import Part, PreparedAll
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.layout import SPECIAL, Layout, lay_out
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.branches import numbers_of_words
from dlmctl.sampling.feasible import check_feasible
from dlmctl.sampling.particles import require_guidance
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.token_layout import counted, lay_out_tokens
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.tokenizer import HuggingFaceTokenizer


def layout_of(plan: Plan, draw: Draw, lengths: Sequence[float] | None = None) -> Layout:
    """The positions of a text, and its number of words where that is settled before the first step.

    Args:
        lengths: weights of each number of words, from 0, in place of the controls' own or the model's.

    Raises:
        RecipeError: no text of the model has so many.
    """
    model = plan.pretrained.model
    if isinstance(plan.pretrained.tokenizer, CheckpointTokenizer):
        return _token_layout(plan, draw, model.config.length)
    if isinstance(plan.pretrained.tokenizer, HuggingFaceTokenizer):
        return on_positions(plan, _layout_in_tokens(plan, draw, lengths))
    wanted = plan.guide.range_of(draw.sample) if plan.guide is not None else None
    if wanted is None and model.counts_words:
        wanted = 1, model.config.length - SPECIAL
    if lengths is None and plan.guide is not None:
        lengths = plan.guide.lengths_of(draw.sample, model.config.length - SPECIAL)
    wanted, lengths = numbers_of_words(plan, draw.sample, wanted, lengths)
    return on_positions(plan, lay_out(model.config, wanted, draw, lengths))


def on_positions(plan: Plan, layout: Layout) -> Layout:
    """The layout on as many positions as the plan's sampler and model want for it."""
    model = plan.pretrained.model
    if plan.sampler.canvas == "full":
        return layout._replace(positions=model.config.length)
    if layout.words is not None and model.hides_padding:
        return layout._replace(positions=layout.words + SPECIAL)
    return layout


def _token_layout(plan: Plan, draw: Draw, longest: int) -> Layout:
    """START, or the last token of the prompt, and the tokens behind it; the model says where the text ends."""
    before = len(plan.prompt.text(draw.sample)) if plan.prompt is not None else 0
    canvas = plan.pretrained.model.canvas if isinstance(plan.pretrained.model, CanvasLM) else None
    new = plan.sampler.new_tokens if canvas is None else canvas.positions
    if max(1, before) + new <= longest:
        return Layout(1 + new, None)
    given = f"a prompt of {before} tokens" if before else "START"
    what = f"{given} and {new} new ones are more than the model's {longest}."
    remedies = ["shorten the prompt"] * (before > 1) + ["set sampler.new_tokens"] * (canvas is None)
    remedy = f"{' or '.join(remedies).capitalize()}." if remedies else None
    raise RecipeError(what, where=f"sample {draw.sample}", remedy=remedy)


def _layout_in_tokens(plan: Plan, draw: Draw, lengths: Sequence[float] | None) -> Layout:
    config = plan.pretrained.model.config
    if plan.guide is not None:
        batch = batch_context(plan, [(draw, Layout(config.length, None))])
        parts = _parts(plan.guide, batch)
        if any(isinstance(part.prepared, ExactTokens) for part in parts):
            return lay_out_tokens(batch, parts)
    settled = (1, config.length - SPECIAL) if plan.pretrained.model.counts_words else None
    return lay_out(config, settled, draw, lengths)


def feasible(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls for the samples of one batch, ready and known to be satisfiable."""
    control = prepared_on(plan, batch)
    if control is not None:
        require_guidance(plan, control)
        check_feasible(control, batch_context(plan, batch))
    return control


def prepared_on(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls for the samples of one batch, ready."""
    return None if plan.guide is None else PreparedAll(_parts(plan.guide, batch_context(plan, batch)))


def _parts(control: Control[Any], batch: BatchContext[Any]) -> list[Part]:
    parts = prepare_all(control, batch).parts
    if isinstance(batch.vocabulary, HuggingFaceTokenizer):
        parts = [*parts, *counted(control, batch, parts)]
    return merged(parts)


def batch_context(plan: Plan, batch: Batch) -> BatchContext[Any]:
    """What the controls are told of a batch."""
    draws, layouts = zip(*batch, strict=True)
    return BatchContext(plan.pretrained.model, plan.pretrained.tokenizer, plan.pretrained.folder, draws, layouts)
