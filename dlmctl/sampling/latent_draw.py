"""A batch of latents from noise to words: the Gaussian family."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlmctl.control.prepared import PreparedAll
from dlmctl.diffusion.layout import stacked
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.samplers import SAMPLERS
from dlmctl.diffusion.schedule import Schedule
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.early_exit import EarlyExit, exit_from
from dlmctl.sampling.graphs import pays
from dlmctl.sampling.latent_steering import LatentSteered
from dlmctl.sampling.particles import particles_for, require_noise
from dlmctl.sampling.plan import Finished, Job, Plan
from dlmctl.sampling.prompted import ClassifierFree
from dlmctl.sampling.walk import OnStep, walk

# Where a recipe leaves the number to the model.
DEFAULT_STEPS = 50


@torch.no_grad()
def draw_latent(job: Job) -> Finished:
    """The word ids of a batch."""
    plan, batch, control, prepare, watch, recorder = job
    sampler, model = plan.sampler, plan.pretrained.latent
    layouts = stacked([layout for _, layout in batch], model.embeddings.device)
    noise = SampleNoise([draw for draw, _ in batch], sampler.top_p, [layout.positions for _, layout in batch])
    steps = sampler.steps or DEFAULT_STEPS
    times = times_of(model.schedule, sampler, steps)

    def steer(rows: Sequence[int]) -> LatentSteered:
        with torch.autocast(layouts.words.device.type, enabled=False):
            part = [batch[row] for row in rows]
            ready = control
            if control is not None and len(rows) < len(batch):
                longest = max(layout.positions for _, layout in part)
                ready = control.of_rows(torch.tensor(rows, device=layouts.words.device), longest) or prepare(part)
            made = _steered(plan, part, ready, steps)
        made.recorder, made.numbers = recorder, rows
        return made

    if sampler.particles > 1:
        return _with_particles(plan, batch, steer(range(len(batch))), times, noise, watch)
    since = exit_from(plan.guidance, times[:-1].tolist()) if control is not None else 1.0
    steered = EarlyExit(steer, len(batch), math.ceil(sampler.patience * steps), since, steps=steps)
    if recorder is not None:
        recorder.gone = lambda: steered.gone
    with networks_in(sampler.precision, layouts.words.device):
        x = walk(_family(plan, batch), steered, layouts, times, noise, watch)
    return Finished(steered.token_ids(x), steered.problems, [None] * len(batch))


def _with_particles(
    plan: Plan, batch: Batch, steered: LatentSteered, times: Tensor, noise: SampleNoise, watch: OnStep
) -> Finished:
    """As ``draw_latent``; nothing leaves early, since another particle may take the place of what is done."""
    with networks_in(plan.sampler.precision, steered.embeddings.device):
        particles = particles_for(plan, batch, steered)
        x = walk(_family(plan, batch), steered, steered.layouts, times, noise, watch, particles)
        found = Finished(steered.token_ids(x), steered.problems, [None] * len(batch))
        return found if particles is None else particles.finish(found, len(steered.embeddings))


def times_of(schedule: Schedule, sampler: SamplerSettings, steps: int) -> Tensor:
    """The times of ``steps`` reverse steps; even ones of a discrete process are those of its own steps.

    So the preset ``paper`` visits the very steps of a checkpoint's process that the original does.
    """
    if schedule.steps is not None and steps <= schedule.steps and sampler.last == 0 and sampler.spacing == 1:
        return schedule.respaced_times(steps)
    return schedule.times(steps, last=sampler.last, spacing=sampler.spacing)


def _family(plan: Plan, batch: Batch) -> ClassifierFree:
    """The model for the rows of a batch, with what they are about and the sampler."""
    model, sampler = plan.pretrained.latent, plan.sampler
    name = latent_sampler(sampler)
    rule = SAMPLERS[name](model.schedule, 0.0 if name == "dpmpp_2m" else sampler.eta)
    return ClassifierFree(model, rule, plan.prompt, [draw.sample for draw, _ in batch], sampler.condition_scale)


def check_latent(sampler: SamplerSettings) -> None:
    """Check that a sampler is one of latents, and draws noise where there are several particles.

    Raises:
        RecipeError: it is not, or does not.
    """
    latent_sampler(sampler)
    require_noise(sampler)


def latent_sampler(sampler: SamplerSettings) -> str:
    """The name of the sampler asked for.

    Raises:
        RecipeError: it is of another family.
    """
    name = "ddim" if sampler.name == "auto" else sampler.name
    if name not in SAMPLERS:
        what = f"{name!r} is a sampler of masked models, and this model has latents."
        raise RecipeError(what, where="sampler.name", remedy=f"Take auto or one of {', '.join(SAMPLERS)}.")
    return name


def _steered(plan: Plan, batch: Batch, control: PreparedAll | None, steps: int) -> LatentSteered:
    device = plan.pretrained.latent.embeddings.device
    layouts = stacked([layout for _, layout in batch], device)
    settings = plan.guidance, plan.sampler
    recorded = plan.sampler.compile and pays(device, "gaussian", steps)
    return LatentSteered(
        _family(plan, batch), plan.pretrained.tokenizer, control, *settings, layouts, recorded=recorded
    )
