"""Draws to words: lay texts out, put those of like length into batches, walk each batch from noise to words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control, ready_all
from dlmctl.control.prepared import PreparedAll
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import Layout, lay_out, stacked
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.samplers import SAMPLERS
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.batches import Batch, batches_of
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.early_exit import EarlyExit, exit_from
from dlmctl.sampling.feasible import check_feasible
from dlmctl.sampling.prompted import ClassifierFree, Prompt, length_weights
from dlmctl.sampling.steering import Steered
from dlmctl.sampling.walk import OnStep, Step, walk

Progress = Callable[[int, int], None]
"""Receives reverse steps done and reverse steps in all."""


class Drawn(NamedTuple):
    """What came of one draw: words, their latents ``[L, D]``, and what went wrong with the guidance, if anything."""

    draw: Draw
    words: list[str]
    latent: np.ndarray
    problem: str | None


class Plan(NamedTuple):
    """How texts are drawn, apart from which ones."""

    pretrained: Pretrained
    control: Control[Any] | None
    sampler: SamplerSettings
    guidance: Guidance
    batch_size: int
    prompt: Prompt | None = None


def draw_texts(
    plan: Plan, draws: Sequence[Draw], *, progress: Progress | None = None, on_step: OnStep | None = None
) -> Iterator[Drawn]:
    """Each of ``draws`` as words, batch by batch, in the order of their lengths.

    How a matrix library rounds depends on the shapes it is given, so the company of a text shows in its last bits, and
    now and then in a word. With ``sampler.deterministic`` a text has none.

    Raises:
        UserError: the control has no weights for this model, or the model cannot satisfy it.
    """
    lengths: dict[int, list[float]] = {}
    if plan.prompt is not None:
        samples = sorted({draw.sample for draw in draws})
        for some in [[sample] for sample in samples] if plan.sampler.deterministic else [samples]:
            lengths |= length_weights(plan.pretrained.model, plan.prompt, some)
    rows = [(draw, _layout(plan, draw, lengths.get(draw.sample))) for draw in draws]
    most = 1 if plan.sampler.deterministic else plan.batch_size
    mixed = plan.pretrained.model.takes_mask
    batches = batches_of(sorted(rows, key=lambda row: row[1].positions), most, mixed=mixed)
    # All of them before the first step, so that whatever cannot be done is said at once.
    controls = [_feasible(plan, batch) for batch in batches]
    for number, (batch, control) in enumerate(zip(batches, controls, strict=True)):

        def watch(step: Step, number: int = number) -> Tensor | None:
            if progress is not None:
                progress(number * step.steps + step.number + 1, len(batches) * step.steps)
            return on_step(step) if on_step is not None else None

        yield from _draw_batch(plan, batch, control, watch)


def impossible(plan: Plan, draws: Sequence[Draw]) -> dict[int, RecipeError]:
    """What stands against each sample that cannot be drawn, by sample; nothing is drawn."""
    found: dict[int, RecipeError] = {}
    for draw in draws:
        try:
            _feasible(plan, [(draw, _layout(plan, draw))])
        except RecipeError as error:
            found[draw.sample] = error
    return found


def _layout(plan: Plan, draw: Draw, lengths: Sequence[float] | None = None) -> Layout:
    config = plan.pretrained.model.config
    wanted = plan.control.range_of(draw.sample) if plan.control is not None else None
    layout = lay_out(config, wanted, draw, lengths)
    return layout if plan.sampler.canvas == "fitted" else layout._replace(positions=config.length)


def _feasible(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls for the samples of one batch, ready and known to be satisfiable."""
    control = _prepared(plan, batch)
    if control is not None:
        check_feasible(control, _context(plan, batch))
    return control


def _prepared(plan: Plan, batch: Batch) -> PreparedAll | None:
    """The controls for the samples of one batch, ready."""
    return None if plan.control is None else ready_all(plan.control, _context(plan, batch))


def _context(plan: Plan, batch: Batch) -> BatchContext[Any]:
    draws, layouts = zip(*batch, strict=True)
    return BatchContext(plan.pretrained.model, plan.pretrained.tokenizer, plan.pretrained.folder, draws, layouts)


def _draw_batch(plan: Plan, batch: Batch, control: PreparedAll | None, watch: OnStep) -> Iterator[Drawn]:
    model, sampler = plan.pretrained.model, plan.sampler
    layouts = stacked([layout for _, layout in batch], model.embeddings.device)
    positions = [layout.positions for _, layout in batch]
    noise = SampleNoise([draw for draw, _ in batch], sampler.top_p, positions)
    times = model.schedule.times(sampler.steps, last=sampler.last, spacing=sampler.spacing)

    def steer(rows: Sequence[int]) -> Steered:
        with torch.autocast(layouts.words.device.type, enabled=False):
            if len(rows) == len(batch):
                return _steered(plan, batch, control)
            part = [batch[row] for row in rows]
            return _steered(plan, part, _prepared(plan, part))

    since = exit_from(plan.guidance, times[:-1].tolist()) if control is not None else 1.0
    steered = EarlyExit(steer, len(batch), math.ceil(sampler.patience * sampler.steps), since)
    with torch.no_grad(), networks_in(sampler.precision, layouts.words.device):
        x = walk(_family(plan, batch), steered, layouts, times, noise, watch)
    with torch.no_grad():
        ids = steered.words(x)
        latents = model.embed(ids).cpu().numpy()
    for row, (draw, _) in enumerate(batch):
        words = plan.pretrained.tokenizer.words(ids[row].tolist())
        yield Drawn(draw, words, latents[row, : positions[row]], steered.problems.get(row))


def _family(plan: Plan, batch: Batch) -> ClassifierFree:
    """The model for the rows of a batch, with what they are about and the sampler."""
    model, sampler = plan.pretrained.model, plan.sampler
    eta = 0.0 if sampler.name == "dpmpp_2m" else sampler.eta
    rule = SAMPLERS[sampler.name](model.schedule, eta)
    return ClassifierFree(model, rule, plan.prompt, [draw.sample for draw, _ in batch], sampler.condition_scale)


def _steered(plan: Plan, batch: Batch, control: PreparedAll | None) -> Steered:
    """The family for the rows of a batch, under their controls."""
    model = plan.pretrained.model
    layouts = stacked([layout for _, layout in batch], model.embeddings.device)
    vocabulary = plan.pretrained.tokenizer
    return Steered(_family(plan, batch), model, vocabulary, control, plan.guidance, plan.sampler, layouts)
