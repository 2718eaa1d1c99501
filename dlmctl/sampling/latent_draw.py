"""Draw a batch of latents from noise to words: the Gaussian family."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlmctl.control.prepared import PreparedAll
from dlmctl.diffusion.layout import batch_layouts
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.samplers import SAMPLERS
from dlmctl.diffusion.schedule import Schedule
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.early_exit import EarlyExit, exit_from
from dlmctl.sampling.graphs import is_faster_recorded
from dlmctl.sampling.latent_steering import LatentSteered
from dlmctl.sampling.particles import particles_for, require_noise
from dlmctl.sampling.plan import Finished, Job, Plan
from dlmctl.sampling.prompted import ClassifierFree
from dlmctl.sampling.walk import OnStep, walk

# Used if a recipe leaves the number of steps to the model.
DEFAULT_STEPS = 50


@torch.no_grad()
def draw_latent(job: Job) -> Finished:
    """Draw the word ids of a batch."""
    plan, batch, control, prepare, watch, recorder = job
    sampler, model = plan.sampler, plan.pretrained.latent
    layouts = batch_layouts([layout for _, layout in batch], model.embeddings.device)
    noise = SampleNoise([draw for draw, _ in batch], sampler.top_p, [layout.positions for _, layout in batch])
    steps = sampler.steps or DEFAULT_STEPS
    times = times_of(model.schedule, sampler, steps)

    def make_steered(rows: Sequence[int]) -> LatentSteered:
        with torch.autocast(layouts.words.device.type, enabled=False):
            sub_batch = [batch[row] for row in rows]
            prepared = control
            if control is not None and len(rows) < len(batch):
                positions = max(layout.positions for _, layout in sub_batch)
                row_index = torch.tensor(rows, device=layouts.words.device)
                prepared = control.of_rows(row_index, positions) or prepare(sub_batch)
            steered = _steered(plan, sub_batch, prepared, steps)
        steered.recorder, steered.row_numbers = recorder, rows
        return steered

    if sampler.particles > 1:
        return _with_particles(plan, batch, make_steered(range(len(batch))), times, noise, watch)
    since = exit_from(plan.guidance, times[:-1].tolist()) if control is not None else 1.0
    steered = EarlyExit(make_steered, len(batch), math.ceil(sampler.patience * steps), since, steps=steps)
    if recorder is not None:
        recorder.finished_rows = lambda: steered.finished
    with networks_in(sampler.precision, layouts.words.device):
        x = walk(_family(plan, batch), steered, layouts, times, noise, watch)
    return Finished(steered.token_ids(x), steered.problems, [None] * len(batch))


def _with_particles(
    plan: Plan, batch: Batch, steered: LatentSteered, times: Tensor, noise: SampleNoise, watch: OnStep
) -> Finished:
    """As ``draw_latent``, but no row leaves early, since another particle may replace a finished one."""
    with networks_in(plan.sampler.precision, steered.embeddings.device):
        particles = particles_for(plan, batch, steered)
        x = walk(_family(plan, batch), steered, steered.layouts, times, noise, watch, particles)
        finished = Finished(steered.token_ids(x), steered.problems, [None] * len(batch))
        return finished if particles is None else particles.finish(finished, len(steered.embeddings))


def times_of(schedule: Schedule, sampler: SamplerSettings, steps: int) -> Tensor:
    """The times of ``steps`` reverse steps; evenly spaced times of a discrete process are those of its own steps.

    So the preset ``paper`` visits exactly those steps of a checkpoint's process that the original visits.
    """
    if schedule.steps is not None and steps <= schedule.steps and sampler.last == 0 and sampler.spacing == 1:
        return schedule.respaced_times(steps)
    return schedule.times(steps, last=sampler.last, spacing=sampler.spacing)


def _family(plan: Plan, batch: Batch) -> ClassifierFree:
    """The model with the sampler and the labels and sources of a batch."""
    model, sampler = plan.pretrained.latent, plan.sampler
    name = latent_sampler(sampler)
    rule = SAMPLERS[name](model.schedule, 0.0 if name == "dpmpp_2m" else sampler.eta)
    return ClassifierFree(model, rule, plan.prompt, [draw.sample for draw, _ in batch], sampler.condition_scale)


def check_latent(sampler: SamplerSettings) -> None:
    """Check that a sampler is for latents, and that it draws noise if there are several particles.

    Raises:
        RecipeError: it is for another family, or draws no noise.
    """
    latent_sampler(sampler)
    require_noise(sampler)


def latent_sampler(sampler: SamplerSettings) -> str:
    """The name of the requested sampler.

    Raises:
        RecipeError: it is for another family.
    """
    name = "ddim" if sampler.name == "auto" else sampler.name
    if name not in SAMPLERS:
        what = f"{name!r} is a sampler of masked models, and this model has latents."
        raise RecipeError(what, where="sampler.name", remedy=f"Take auto or one of {', '.join(SAMPLERS)}.")
    return name


def _steered(plan: Plan, batch: Batch, control: PreparedAll | None, steps: int) -> LatentSteered:
    device = plan.pretrained.latent.embeddings.device
    layouts = batch_layouts([layout for _, layout in batch], device)
    settings = plan.guidance, plan.sampler
    recorded = plan.sampler.compile and is_faster_recorded(device, "gaussian", steps)
    family, tokenizer = _family(plan, batch), plan.pretrained.tokenizer
    return LatentSteered(family, tokenizer, control, *settings, layouts, recorded=recorded)
