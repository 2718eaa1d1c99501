"""Draws to words: lay texts out, put those of like length into batches, walk each batch from noise to words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.automata import HeldTokens, merged
from dlmctl.control.base import Control, ready_all
from dlmctl.control.prepared import Part, PreparedAll
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.layout import SPECIAL, Layout, Layouts, lay_out, stacked
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import BATCH_COST, BATCH_COST_GPU, ROOM, Batch, batches_of
from dlmctl.sampling.canvas_draw import draw_canvas, require_own
from dlmctl.sampling.feasible import check_feasible
from dlmctl.sampling.graphs import recordable
from dlmctl.sampling.latent_draw import draw_latent, latent_sampler
from dlmctl.sampling.masked_draw import draw_masked, sampler_name
from dlmctl.sampling.particles import expanded
from dlmctl.sampling.plan import DrawBatch, Job, Plan
from dlmctl.sampling.prompted import length_weights
from dlmctl.sampling.token_layout import counted, lay_out_tokens
from dlmctl.sampling.trace import Frame, Recorder
from dlmctl.sampling.unused import require_used
from dlmctl.sampling.walk import OnStep, Step
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.tokenizer import HuggingFaceTokenizer

# Scores of tokens in a tensor, of which 6 are held at once and under guidance 14: 512 MiB in float32.
MOST_SCORES = 1 << 27

# Texts of a batch that are shown as they are drawn: as many as a screen may have.
MOST_WATCHED = 60

Progress = Callable[[int, int], None]
"""Receives reverse steps done and reverse steps in all."""


class Drawing(NamedTuple):
    """How the texts of a family are drawn: ``batch`` by batch; ``check`` raises a RecipeError of settings of a sampler
    that are for another family."""

    batch: DrawBatch
    check: Callable[[SamplerSettings, Pretrained], object]


_MASKED = Drawing(draw_masked, lambda sampler, pretrained: sampler_name(sampler, None, pretrained.masked))
# By the names of the families.
DRAWS = {
    "gaussian": Drawing(draw_latent, lambda sampler, _: latent_sampler(sampler)),
    "masked": _MASKED,
    "tokens": _MASKED,
    "canvas": Drawing(draw_canvas, lambda sampler, _: require_own(sampler)),
    "uniform": _MASKED,
}


class Drawn(NamedTuple):
    """What came of one draw: words, their natural text, their embeddings ``[L, D]``, what went wrong with the guidance,
    if anything, the nats that the walk found the words to have, where the family knows, and how they came about, where
    that is asked."""

    draw: Draw
    words: list[str]
    text: str
    latent: np.ndarray
    problem: str | None
    nats: float | None
    frames: Sequence[Frame] = ()


def draw_texts(
    plan: Plan, draws: Sequence[Draw], *, progress: Progress | None = None, on_step: OnStep | None = None
) -> Iterator[Drawn]:
    """Each of ``draws`` as words; see ``draw_batches``."""
    return chain.from_iterable(draw_batches(plan, draws, progress=progress, on_step=on_step))


def draw_batches(
    plan: Plan, draws: Sequence[Draw], *, progress: Progress | None = None, on_step: OnStep | None = None
) -> Iterator[list[Drawn]]:
    """The texts of each batch as it is done, in the order of their lengths.

    How a matrix library rounds depends on the shapes it is given, so the company of a text shows in its last bits, and
    now and then in a word. With ``sampler.deterministic`` a text has none.

    Raises:
        UserError: the control has no weights for this model, or the model cannot satisfy it or does not read a setting.
    """
    require_used(plan.sampler, plan.pretrained.model.family)
    lengths: dict[int, list[float]] = {}
    if plan.prompt is not None and isinstance(plan.pretrained.model, DiffusionLM):
        samples = sorted({draw.sample for draw in draws})
        for some in [[sample] for sample in samples] if plan.sampler.deterministic else [samples]:
            lengths |= length_weights(plan.pretrained.latent, plan.prompt, some)
    rows = [(draw, _layout(plan, draw, lengths.get(draw.sample))) for draw in draws]
    most = 1 if plan.sampler.deterministic else _most_texts(plan, max(layout.positions for _, layout in rows))
    batches = [expanded(batch, plan.sampler.particles) for batch in _batches(plan, rows, most)]
    # All of them before the first step, so that whatever cannot be done is said at once.
    controls = [_feasible(plan, batch) for batch in batches]
    for number, (batch, control) in enumerate(zip(batches, controls, strict=True)):

        def watch(step: Step, number: int = number) -> Tensor | None:
            if progress is not None:
                progress(number * step.steps + step.number + 1, len(batches) * step.steps)
            return on_step(step.kept()) if on_step is not None else None

        yield list(_draw_batch(plan, batch, control, watch))


def _batches(plan: Plan, rows: Batch, most: int) -> Iterator[Batch]:
    """The rows in batches of at most ``most``, as they take least time on the model's device."""
    model = plan.pretrained.model
    cost, room = BATCH_COST_GPU, float("inf")
    if model.embeddings.device.type == "cpu":
        cost, room = BATCH_COST, ROOM / (len(model.embeddings) * plan.sampler.particles)
    for alike in _alike(plan, rows):
        yield from batches_of(alike, most, mixed=model.takes_mask, cost=cost, room=room)


def _alike(plan: Plan, rows: Batch) -> list[Batch]:
    """The rows that may share a batch, by their positions; on a canvas those whose prompts are of one length."""
    prompt = plan.prompt if plan.pretrained.model.family == "canvas" else None
    groups: dict[int, Batch] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[1].positions):
        groups[len(prompt.text(row[0].sample)) if prompt is not None else 0].append(row)
    return [groups[length] for length in sorted(groups)]


def prepared_for(plan: Plan, draws: Sequence[Draw]) -> tuple[Layouts, PreparedAll | None]:
    """The layouts of some draws on all the positions that a text over tokens may have, and the controls for them.

    Raises:
        UserError: as ``draw_texts``.
    """
    rows = [(draw, _layout(plan, draw)._replace(positions=1 + plan.sampler.new_tokens)) for draw in draws]
    device = plan.pretrained.model.embeddings.device
    return stacked([layout for _, layout in rows], device), _feasible(plan, rows)


def impossible(plan: Plan, draws: Sequence[Draw]) -> dict[int, RecipeError]:
    """What stands against each sample that cannot be drawn, by sample; nothing is drawn."""
    found: dict[int, RecipeError] = {}
    for draw in draws:
        try:
            _feasible(plan, [(draw, _layout(plan, draw))])
        except RecipeError as error:
            found[draw.sample] = error
    return found


def _most_texts(plan: Plan, positions: int) -> int:
    """Texts of a batch: as many as asked for, but no more than the scores of a large vocabulary leave memory for."""
    model, rows = plan.pretrained.model, plan.batch_size
    if isinstance(model, TokenLM | CanvasLM):
        rows = min(rows, MOST_SCORES // (positions * model.config.vocab_size))
    return max(1, rows // plan.sampler.particles)


def _layout(plan: Plan, draw: Draw, lengths: Sequence[float] | None = None) -> Layout:
    model = plan.pretrained.model
    if isinstance(plan.pretrained.tokenizer, CheckpointTokenizer):
        return _token_layout(plan, draw, model.config.length)
    if isinstance(plan.pretrained.tokenizer, HuggingFaceTokenizer):
        return _on_positions(plan, _layout_in_tokens(plan, draw, lengths))
    wanted = plan.control.range_of(draw.sample) if plan.control is not None else None
    if wanted is None and model.counts_words:
        wanted = 1, model.config.length - SPECIAL
    if lengths is None and plan.control is not None:
        lengths = plan.control.lengths_of(draw.sample, model.config.length - SPECIAL)
    return _on_positions(plan, lay_out(model.config, wanted, draw, lengths))


def _on_positions(plan: Plan, layout: Layout) -> Layout:
    model = plan.pretrained.model
    if plan.sampler.canvas == "full":
        return layout._replace(positions=model.config.length)
    if layout.words is not None and model.hides_padding:
        return layout._replace(positions=layout.words + SPECIAL)
    return layout


def _token_layout(plan: Plan, draw: Draw, longest: int) -> Layout:
    """START, or the last token of the prompt, and the tokens behind it; the model says where the text ends."""
    before = max(1, len(plan.prompt.text(draw.sample))) if plan.prompt is not None else 1
    if before + plan.sampler.new_tokens > longest:
        new = plan.sampler.new_tokens
        what = f"a prompt of {before} tokens and {new} new ones are more than the model's {longest}."
        remedy = "Shorten the prompt or set sampler.new_tokens."
        raise RecipeError(what, where=f"sample {draw.sample}", remedy=remedy)
    model, new = plan.pretrained.model, plan.sampler.new_tokens
    if not isinstance(model, CanvasLM):
        return Layout(1 + new, None)
    if new > model.canvas.positions:
        what = f"a text of this model is one canvas of {model.canvas.positions} tokens, and {new} are asked for."
        raise RecipeError(what, where="sampler.new_tokens")
    return Layout(1 + model.canvas.positions, None)


def _layout_in_tokens(plan: Plan, draw: Draw, lengths: Sequence[float] | None) -> Layout:
    config = plan.pretrained.model.config
    if plan.control is not None:
        batch = _context(plan, [(draw, Layout(config.length, None))])
        parts = _parts(plan.control, batch)
        if any(isinstance(part.prepared, HeldTokens) for part in parts):
            return lay_out_tokens(batch, parts)
    settled = (1, config.length - SPECIAL) if plan.pretrained.model.counts_words else None
    return lay_out(config, settled, draw, lengths)


def _feasible(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls for the samples of one batch, ready and known to be satisfiable."""
    control = _prepared(plan, batch)
    if control is not None:
        check_feasible(control, _context(plan, batch))
    return control


def _prepared(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls for the samples of one batch, ready."""
    return None if plan.control is None else PreparedAll(_parts(plan.control, _context(plan, batch)))


def _parts(control: Control[Any], batch: BatchContext[Any]) -> list[Part]:
    parts = ready_all(control, batch).parts
    if isinstance(batch.vocabulary, HuggingFaceTokenizer):
        parts = [*parts, *counted(control, batch, parts)]
    return merged(parts)


def _context(plan: Plan, batch: Batch) -> BatchContext[Any]:
    draws, layouts = zip(*batch, strict=True)
    return BatchContext(plan.pretrained.model, plan.pretrained.tokenizer, plan.pretrained.folder, draws, layouts)


def _draw_batch(plan: Plan, batch: Batch, control: PreparedAll | None, watch: OnStep) -> Iterator[Drawn]:
    family = DRAWS[plan.pretrained.model.family]
    recorder = _recorder(plan, batch)
    with recordable(plan.pretrained.model.embeddings.device):
        job = Job(plan, batch, control, lambda part: _prepared(plan, part), watch, recorder)
        ids, problems, nats = family.batch(job)
    with torch.no_grad():
        latents = plan.pretrained.model.embed(ids).float().cpu().numpy()
    rows = ids.tolist()
    if recorder is not None:
        recorder.finish(rows)
    tokenizer = plan.pretrained.tokenizer
    for row, (one, layout) in enumerate(batch[:: plan.sampler.particles]):
        words, text = tokenizer.words(rows[row]), tokenizer.decode(rows[row])
        frames = recorder.texts[row] if recorder is not None and one.sample in plan.traced else ()
        yield Drawn(one, words, text, latents[row, : layout.positions], problems.get(row), nats[row], frames)


def _recorder(plan: Plan, batch: Batch) -> Recorder | None:
    """What notes down the rows of a batch that are to be traced or watched, if there are any."""
    traced = [row for row, (draw, _) in enumerate(batch) if draw.sample in plan.traced]
    watched = range(len(batch))[: MOST_WATCHED * plan.sampler.particles] if plan.watch is not None else ()
    rows = sorted({*traced, *watched})
    if not rows:
        return None
    some = [batch[row] for row in rows]
    model = plan.pretrained.model
    # Prepared once more and for these rows alone, so that looking at the energies changes nothing of what guides.
    control = ready_all(plan.control, _context(plan, some)) if plan.control is not None and traced else None
    return Recorder(
        {row: batch[row][0] for row in rows},
        control.parts if control is not None else [],
        stacked([layout for _, layout in some], model.embeddings.device),
        model.embeddings.detach(),
        plan.pretrained.tokenizer,
        plan.sampler.particles,
        plan.watch,
    )
