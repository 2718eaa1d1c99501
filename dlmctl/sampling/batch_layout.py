"""The layout of draws: how many positions each text has, and the controls prepared for a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlmctl.control.automata import ExactTokens, merged
from dlmctl.control.base import Control
from dlmctl.control.combined import prepare_all
from dlmctl.control.prepared import Part, PreparedAll, overrides
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.layout import SPECIAL, Layout, batch_layouts, lay_out, uniform_logits
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.tokens import TokenConfig, TokenLM
from dlmctl.errors import RecipeError, UnsatisfiableError
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.branches import word_counts
from dlmctl.sampling.feasible import check_feasible
from dlmctl.sampling.particles import require_guidance
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.steering import evidence_of
from dlmctl.sampling.token_layout import lay_out_tokens, layout_without_count, word_count_parts
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.tokenizer import HuggingFaceTokenizer


def layout_of(plan: Plan, draw: Draw, lengths: Sequence[float] | None = None) -> Layout:
    """The positions of a text, and its number of words if that is fixed before the first step.

    Args:
        lengths: the weight of each number of words, from 0, in place of those of the controls or the model.

    Raises:
        RecipeError: the text would be longer than the model allows.
    """
    model = plan.pretrained.model
    if isinstance(plan.pretrained.tokenizer, CheckpointTokenizer):
        return _checkpoint_layout(plan, draw)
    if isinstance(plan.pretrained.tokenizer, HuggingFaceTokenizer):
        count_range = (1, model.config.length - SPECIAL) if model.counts_words else None
        return on_positions(plan, _layout_in_tokens(plan, draw, count_range, lengths))
    count_range = plan.guide.range_of(draw.sample) if plan.guide is not None else None
    if count_range is None and model.counts_words:
        count_range = 1, model.config.length - SPECIAL
    if lengths is None and plan.guide is not None:
        lengths = plan.guide.lengths_of(draw.sample, model.config.length - SPECIAL)
    count_range, lengths = word_counts(plan, draw.sample, count_range, lengths)
    return on_positions(plan, lay_out(model.config, count_range, draw, lengths))


def on_positions(plan: Plan, layout: Layout) -> Layout:
    """The layout with the number of positions that the plan's sampler and model need for it."""
    model = plan.pretrained.model
    if plan.sampler.canvas == "full":
        return layout._replace(positions=model.config.length)
    if layout.words is not None and (model.hides_padding or isinstance(model, TokenLM)):
        return layout._replace(positions=layout.words + SPECIAL)
    return layout


def _new_tokens(plan: Plan) -> int:
    """The most tokens of a text of a checkpoint, after its prompt."""
    config = plan.pretrained.model.config
    assert isinstance(config, TokenConfig)
    return plan.sampler.new_tokens or config.new_tokens


def _checkpoint_layout(plan: Plan, draw: Draw) -> Layout:
    """START, or the last token of the prompt, and the tokens after it.

    The model decides where the text ends. If it does not write ends, or the controls bound the number of words, the
    number of tokens is settled: it is one that the controls allow. Drawn place by place, an end is often written before
    it is known whether that many words fit before it.
    """
    model = plan.pretrained.model
    prompt_tokens = len(plan.prompt.text(draw.sample)) if plan.prompt is not None else 0
    canvas = model.canvas if isinstance(model, CanvasLM) else None
    most = _new_tokens(plan) if canvas is None else canvas.positions
    is_settled = isinstance(model, TokenLM) and not model.config.ends
    if max(1, prompt_tokens) + most + is_settled > model.config.length:
        context = f"a prompt of {prompt_tokens} tokens" if prompt_tokens else "START"
        what = f"{context} and {most} new ones are more than the model's {model.config.length}."
        remedies = ["shorten the prompt"] * (prompt_tokens > 1) + ["set sampler.new_tokens"] * (canvas is None)
        remedy = f"{' or '.join(remedies).capitalize()}." if remedies else None
        raise RecipeError(what, where=f"sample {draw.sample}", remedy=remedy)
    if is_settled:
        # Without lengths of training texts nothing says how many tokens a text has: it gets as many as it may.
        fewest = 1 if sum(model.config.sentence_lengths[: most + 1]) else most
        return on_positions(plan, _layout_in_tokens(plan, draw, (fewest, most), most=most))
    open_layout = Layout(1 + most, None)
    if not _bounds_words(plan, draw):
        return open_layout
    if model.settles_tokens and most > 1:
        # END is one of the new tokens.
        return on_positions(plan, _layout_in_tokens(plan, draw, None, most=most - 1))
    return _with_sizes(plan, draw, 1 + most, layout_without_count) or open_layout


def _bounds_words(plan: Plan, draw: Draw) -> bool:
    """Whether the controls limit the number of words of a text."""
    count_range = None if plan.guide is None else plan.guide.range_of(draw.sample)
    return count_range is not None and count_range[1] < plan.pretrained.model.config.length


def _layout_in_tokens(
    plan: Plan,
    draw: Draw,
    count_range: tuple[int, int] | None,
    lengths: Sequence[float] | None = None,
    most: int | None = None,
) -> Layout:
    """The layout of a text whose number of tokens is settled.

    Args:
        count_range: the fewest and the most tokens, if no control is about words.
        lengths: as in ``layout_of``, if no control is about words.
        most: the most tokens, if a control is; the model's own limit if not given.
    """
    config = plan.pretrained.model.config
    if plan.guide is not None:
        positions = config.length if most is None else min(config.length, most + SPECIAL)
        layout = _with_sizes(plan, draw, positions, partial(lay_out_tokens, most=most))
        if layout is not None:
            return layout
    return lay_out(config, count_range, draw, lengths)


def _with_sizes(
    plan: Plan, draw: Draw, positions: int, lay_out_text: Callable[[BatchContext[Any], Sequence[Part]], Layout]
) -> Layout | None:
    """What ``lay_out_text`` makes of the controls of a text over tokens; the layout has open sizes if no text is left
    by what controls draw by themselves. None if no control is about words."""
    guide = plan.guide
    assert guide is not None

    def layout(*, sizes_open: bool) -> Layout | None:
        batch = batch_context(plan, [(draw, Layout(positions, None, sizes_open))])
        parts = _parts(guide, batch)
        if not any(isinstance(part.prepared, ExactTokens) for part in parts):
            return None
        return lay_out_text(batch, parts)._replace(sizes_open=sizes_open)

    try:
        return layout(sizes_open=False)
    except UnsatisfiableError:
        return layout(sizes_open=True)


def feasible(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls, prepared for the samples of one batch and checked to be satisfiable."""
    control = prepare_batch(plan, batch)
    if control is not None:
        require_guidance(plan, control)
        check_feasible(control, batch_context(plan, batch))
    return control


def prepare_batch(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls, prepared for the samples of one batch."""
    return None if plan.guide is None else PreparedAll(_parts(plan.guide, batch_context(plan, batch)))


def _parts(control: Control[Any], batch: BatchContext[Any]) -> list[Part]:
    parts = prepare_all(control, batch).parts
    if isinstance(batch.vocabulary, HuggingFaceTokenizer):
        parts = [*parts, *word_count_parts(control, batch, parts)]
    return _beside_each_other(merged(parts), batch)


def _beside_each_other(parts: list[Part], batch: BatchContext[Any]) -> list[Part]:
    """The parts, with those that draw a part of their condition told in turn what all others leave."""
    if len(parts) < 2 or not any(overrides(part.prepared, "beside") for part in parts):
        return parts
    layouts = batch_layouts(batch.layouts, batch.device)
    logits = uniform_logits(layouts, batch.vocabulary, batch.model.config.vocab_size)
    for number, part in enumerate(parts):
        if overrides(part.prepared, "beside"):
            others = [other for other in parts if other is not part]
            exact = PreparedAll([other for other in others if other.prepared.exact])
            left = exact.constrain(PreparedAll(others).restrict(logits), torch.ones(len(batch), dtype=torch.float64))
            parts[number] = part.beside(~left.isneginf(), partial(_evidence_given, others))
    return parts


def _evidence_given(parts: Sequence[Part], probabilities: Tensor) -> Tensor:
    """The evidence ``[B, L, V]`` of several parts for each word given the ``probabilities [B, L, V]`` of the others."""
    fixed = evidence_of(parts)
    weighed = [part.evidence_given(probabilities) for part in parts if part.prepared.weighs and part.weight]
    return sum(weighed, start=torch.zeros_like(probabilities) if fixed is None else fixed)


def batch_context(plan: Plan, batch: Batch) -> BatchContext[Any]:
    """The context that the controls receive for a batch."""
    draws, layouts = zip(*batch, strict=True)
    return BatchContext(plan.pretrained.model, plan.pretrained.tokenizer, plan.pretrained.folder, draws, layouts)
