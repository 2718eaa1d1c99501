"""Draw a batch of texts with DiffusionGemma, one canvas per text."""

from __future__ import annotations

import torch

from dlmctl.diffusion.canvas import CanvasLM, Uniform
from dlmctl.diffusion.layout import batch_layouts
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.plan import Finished, Job
from dlmctl.sampling.steering import Steered
from dlmctl.sampling.walk import walk


@torch.no_grad()
def draw_canvas(job: Job) -> Finished:
    """Draw the token ids of a batch, whose prompts all have the same length and need no padding.

    Raises:
        RecipeError: a sampler, particles or blocks are requested, which a canvas does not support.
    """
    plan, batch, control, _, watch, recorder = job
    model, tokenizer = plan.pretrained.model, plan.pretrained.tokenizer
    assert isinstance(model, CanvasLM)
    require_canvas_sampler(plan.sampler)
    layouts = batch_layouts([layout for _, layout in batch], model.embeddings.device)
    noise = SampleNoise([draw for draw, _ in batch], positions=[layout.positions for _, layout in batch])
    rows = [list(plan.prompt.text(draw.sample)) if plan.prompt is not None else [] for draw, _ in batch]
    prompt = torch.tensor([row or [tokenizer.start_id] for row in rows], device=model.embeddings.device)
    steps = plan.sampler.steps or model.canvas.steps
    family = Uniform(model, prompt, tokenizer.start_id, steps)
    settings = plan.guidance, plan.sampler
    # The text consists of the likeliest token at every place at once.
    steered = Steered(family, model.embeddings, tokenizer, control, *settings, layouts, joint_until=1.0)
    steered.recorder = recorder
    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    with networks_in(plan.sampler.precision, layouts.words.device):
        x = walk(family, steered, layouts, times, noise, watch)
    return Finished(x, steered.problems, [None] * len(batch))


def require_canvas_sampler(sampler: SamplerSettings) -> None:
    """Check that no sampler other than DiffusionGemma's own is requested.

    Raises:
        RecipeError: another one is.
    """
    if sampler.name != "auto" or sampler.particles > 1 or sampler.block is not None:
        what = "a DiffusionGemma has one sampler, without blocks and particles."
        raise RecipeError(what, where="sampler", remedy="Leave name, particles and block out.")
