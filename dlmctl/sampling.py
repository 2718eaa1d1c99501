"""Draws to words: lay texts out, put those of like length into batches, walk each batch from noise to words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.canvas import Layout, lay_out, stacked
from dlmctl.checkpoint import Pretrained
from dlmctl.condition import Condition
from dlmctl.conditioned import Conditioned, length_weights
from dlmctl.control import Control, Setting
from dlmctl.errors import RecipeError
from dlmctl.feasible import check_feasible
from dlmctl.noise import Draw, SampleNoise
from dlmctl.precision import networks_in
from dlmctl.samplers import SAMPLERS, OnStep, Step
from dlmctl.settings import Guidance, SamplerSettings
from dlmctl.settling import Settling, settled_since
from dlmctl.steer import Steered

# What a batch costs beside its positions (rows x length), in positions. Measured on a CPU.
BATCH_COST = 400

Batch = list[tuple[Draw, Layout]]

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
    condition: Condition | None = None


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
    if plan.condition is not None:
        samples = sorted({draw.sample for draw in draws})
        for some in [[sample] for sample in samples] if plan.sampler.deterministic else [samples]:
            lengths |= length_weights(plan.pretrained.model, plan.condition, some)
    rows = [(draw, _layout(plan, draw, lengths.get(draw.sample))) for draw in draws]
    most = 1 if plan.sampler.deterministic else plan.batch_size
    mixed = plan.pretrained.model.ragged and (plan.control is None or plan.control.ragged)
    batches = batches_of(sorted(rows, key=lambda row: row[1].canvas), most, mixed=mixed)
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
    layout = lay_out(config, plan.control, draw, lengths)
    return layout if plan.sampler.canvas == "fitted" else layout._replace(canvas=config.length)


def batches_of(rows: Batch, most: int, *, mixed: bool) -> list[Batch]:
    """Rows, sorted by canvas, in batches of at most ``most``, split where that costs the least time in all.

    Args:
        mixed: whether rows of different canvases may share a batch, the shorter ones masked.
    """
    costs, starts = [0.0], [0]
    for end in range(1, len(rows) + 1):
        canvas = rows[end - 1][1].canvas
        found = [
            (costs[start] + BATCH_COST + (end - start) * canvas, start)
            for start in range(max(0, end - most), end)
            if mixed or rows[start][1].canvas == canvas
        ]
        cost, start = min(found)
        costs.append(cost)
        starts.append(start)
    batches: list[Batch] = []
    end = len(rows)
    while end:
        batches.insert(0, rows[starts[end] : end])
        end = starts[end]
    return batches


def _feasible(plan: Plan, batch: Batch) -> Control[Any] | None:
    """The control for the samples of one batch, ready and known to be satisfiable."""
    control = _prepared(plan, batch)
    if control is not None:
        check_feasible(control, _setting(plan, batch))
    return control


def _prepared(plan: Plan, batch: Batch) -> Control[Any] | None:
    """The control for the samples of one batch, ready."""
    if plan.control is None:
        return None
    control = plan.control.only([draw.sample for draw, _ in batch])
    control.prepare(_setting(plan, batch))
    return control


def _setting(plan: Plan, batch: Batch) -> Setting:
    draws, layouts = zip(*batch, strict=True)
    return Setting(plan.pretrained.model, plan.pretrained.tokenizer, plan.pretrained.folder, draws, layouts)


def _draw_batch(plan: Plan, batch: Batch, control: Control[Any] | None, watch: OnStep) -> Iterator[Drawn]:
    model, tokenizer, sampler = plan.pretrained.model, plan.pretrained.tokenizer, plan.sampler
    draws, device = [draw for draw, _ in batch], model.embeddings.device
    canvases = [layout.canvas for _, layout in batch]
    noise = SampleNoise(draws, sampler.top_p, canvases)
    times = model.schedule.times(sampler.steps, last=sampler.last, spacing=sampler.spacing)

    def steer(rows: Sequence[int]) -> Steered:
        with torch.autocast(device.type, enabled=False):
            if len(rows) == len(batch):
                return _steered(plan, batch, control)
            part = [batch[row] for row in rows]
            return _steered(plan, part, _prepared(plan, part))

    since = settled_since(plan.guidance, times[:-1].tolist()) if control is not None else 1.0
    steered = Settling(steer, len(batch), math.ceil(sampler.patience * sampler.steps), since)

    def on_step(step: Step) -> Tensor | None:
        moved = steered.on_step(step)
        replaced = watch(step if moved is None else step._replace(x=moved))
        return moved if replaced is None else replaced

    with torch.no_grad(), networks_in(sampler.precision, device):
        x = noise(torch.empty(len(draws), max(canvases), model.config.embed_dim, device=device))
        eta = 0.0 if sampler.name == "dpmpp_2m" else sampler.eta
        x = SAMPLERS[sampler.name](steered, x, times, model.schedule, noise, eta=eta, on_step=on_step)
    with torch.no_grad():
        ids = steered.words(x)
        latents = model.embed(ids).cpu().numpy()
    for row, draw in enumerate(draws):
        latent = latents[row, : canvases[row]]
        yield Drawn(draw, tokenizer.words(ids[row].tolist()), latent, steered.problems.get(row))


def _steered(plan: Plan, batch: Batch, control: Control[Any] | None) -> Steered:
    """The model for the rows of a batch, with what they are given and under their control."""
    model, sampler = plan.pretrained.model, plan.sampler
    layouts = stacked([layout for _, layout in batch], model.embeddings.device)
    samples = [draw.sample for draw, _ in batch]
    conditioned = Conditioned(model, plan.condition, samples, sampler.condition_scale, layouts.inside)
    return Steered(conditioned, plan.pretrained.tokenizer, control, plan.guidance, sampler, layouts)
