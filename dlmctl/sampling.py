"""Draws to words: lay texts out, put those of like length into batches, walk each batch from noise to words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.canvas import Layout, lay_out
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
from dlmctl.steer import Steered

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

    Raises:
        UserError: the control has no weights for this model, or the model cannot satisfy it.
    """
    lengths: dict[int, list[float]] = {}
    if plan.condition is not None:
        lengths = length_weights(plan.pretrained.model, plan.condition, sorted({draw.sample for draw in draws}))
    by_canvas: dict[int, list[tuple[Draw, Layout]]] = defaultdict(list)
    for draw in draws:
        layout = _layout(plan, draw, lengths.get(draw.sample))
        by_canvas[layout.canvas].append((draw, layout))
    batches = [
        rows[at : at + plan.batch_size]
        for _, rows in sorted(by_canvas.items())
        for at in range(0, len(rows), plan.batch_size)
    ]
    # All of them before the first step, so that whatever cannot be done is said at once.
    controls = [_prepared(plan, batch) for batch in batches]
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
            _prepared(plan, [(draw, _layout(plan, draw))])
        except RecipeError as error:
            found[draw.sample] = error
    return found


def _layout(plan: Plan, draw: Draw, lengths: Sequence[float] | None = None) -> Layout:
    config = plan.pretrained.model.config
    layout = lay_out(config, plan.control, draw, lengths)
    return layout if plan.sampler.canvas == "fitted" else layout._replace(canvas=config.length)


Batch = list[tuple[Draw, Layout]]


def _counts(plan: Plan, batch: Batch) -> Tensor:
    """Words of each row ``[B]``, -1 where the model decides."""
    counts = [-1 if layout.words is None else layout.words for _, layout in batch]
    return torch.tensor(counts, device=plan.pretrained.model.embeddings.device)


def _prepared(plan: Plan, batch: Batch) -> Control[Any] | None:
    """The control for the samples of one batch, ready and known to be satisfiable."""
    if plan.control is None:
        return None
    draws, canvas = [draw for draw, _ in batch], batch[0][1].canvas
    control = plan.control.only([draw.sample for draw in draws])
    pretrained, words = plan.pretrained, [layout.words for _, layout in batch]
    setting = Setting(pretrained.model, pretrained.tokenizer, pretrained.folder, canvas, draws, words)
    control.prepare(setting)
    check_feasible(control, setting, _counts(plan, batch))
    return control


def _draw_batch(plan: Plan, batch: Batch, control: Control[Any] | None, watch: OnStep) -> Iterator[Drawn]:
    model, tokenizer, sampler = plan.pretrained.model, plan.pretrained.tokenizer, plan.sampler
    draws, canvas, table = [draw for draw, _ in batch], batch[0][1].canvas, model.embeddings
    conditioned = Conditioned(model, plan.condition, [draw.sample for draw in draws], sampler.condition_scale)
    steered = Steered(conditioned, tokenizer, control, plan.guidance, sampler, _counts(plan, batch))
    noise = SampleNoise(draws, sampler.top_p)

    def on_step(step: Step) -> Tensor | None:
        moved = steered.on_step(step)
        replaced = watch(step if moved is None else step._replace(x=moved))
        return moved if replaced is None else replaced

    with torch.no_grad(), networks_in(sampler.precision, table.device):
        x = noise(torch.empty(len(draws), canvas, model.config.embed_dim, device=table.device))
        times = model.schedule.times(sampler.steps, last=sampler.last, spacing=sampler.spacing)
        eta = 0.0 if sampler.name == "dpmpp_2m" else sampler.eta
        x = SAMPLERS[sampler.name](steered, x, times, model.schedule, noise, eta=eta, on_step=on_step)
    with torch.no_grad():
        ids = steered.words(x)
        latents = model.embed(ids).cpu().numpy()
    for row, draw in enumerate(draws):
        yield Drawn(draw, tokenizer.words(ids[row].tolist()), latents[row], steered.problems.get(row))
