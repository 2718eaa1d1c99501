"""A batch of texts of DiffusionGemma, each on a canvas of its own."""

from __future__ import annotations

from itertools import groupby

import torch

from dlmctl.control.prepared import PreparedAll
from dlmctl.diffusion.canvas import CanvasLM, Uniform
from dlmctl.diffusion.layout import stacked
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.plan import Finished, Plan, Preparing
from dlmctl.sampling.steering import Steered
from dlmctl.sampling.trace import Recorder
from dlmctl.sampling.walk import OnStep, walk


@torch.no_grad()
def draw_canvas(
    plan: Plan,
    batch: Batch,
    control: PreparedAll | None,
    prepare: Preparing,
    watch: OnStep,
    recorder: Recorder | None = None,
) -> Finished:
    """The token ids of a batch, those of prompts of one length at a time: nothing has to be filled up.

    Args:
        control: prepared for the batch; recorder: notes down some of its rows.

    Raises:
        RecipeError: a sampler or particles are asked for, which a canvas has not.
    """
    require_own(plan.sampler)
    lengths = [len(_prompt(plan, draw.sample)) for draw, _ in batch]
    ids: dict[int, list[int]] = {}
    problems: dict[int, str] = {}
    order = sorted(range(len(batch)), key=lambda row: lengths[row])
    for _, group in groupby(order, key=lambda row: lengths[row]):
        rows = list(group)
        some = [batch[row] for row in rows]
        steered = _steered(plan, some, control if len(some) == len(batch) else prepare(some))
        steered.recorder, steered.numbers = recorder, rows
        found = _drawn(plan, some, steered, watch)
        ids |= dict(zip(rows, found.ids.tolist(), strict=True))
        problems |= {rows[at]: said for at, said in found.problems.items()}
    return Finished(torch.tensor([ids[row] for row in range(len(batch))]), problems, [None] * len(batch))


def require_own(sampler: SamplerSettings) -> None:
    """Check that no sampler is asked for but that of DiffusionGemma.

    Raises:
        RecipeError: there is.
    """
    if sampler.name != "auto" or sampler.particles > 1 or sampler.block is not None:
        what = "a DiffusionGemma has one sampler, without blocks and particles."
        raise RecipeError(what, where="sampler", remedy="Leave name, particles and block out.")


def _prompt(plan: Plan, sample: int) -> list[int]:
    given = list(plan.prompt.text(sample)) if plan.prompt is not None else []
    return given or [plan.pretrained.tokenizer.start_id]


def _steered(plan: Plan, batch: Batch, control: PreparedAll | None) -> Steered:
    model, tokenizer = plan.pretrained.model, plan.pretrained.tokenizer
    assert isinstance(model, CanvasLM)
    layouts = stacked([layout for _, layout in batch], model.embeddings.device)
    prompt = torch.tensor([_prompt(plan, draw.sample) for draw, _ in batch], device=model.embeddings.device)
    family = Uniform(model, prompt, tokenizer.start_id, plan.sampler.steps or model.canvas.steps)
    # The text is what is likeliest at every place at once.
    return Steered(family, model.embeddings, tokenizer, control, plan.guidance, plan.sampler, layouts, one_by_one=False)


def _drawn(plan: Plan, batch: Batch, steered: Steered, watch: OnStep) -> Finished:
    noise = SampleNoise([draw for draw, _ in batch], positions=[layout.positions for _, layout in batch])
    assert isinstance(steered.family, Uniform)
    times = torch.linspace(1.0, 0.0, steered.family.steps + 1, dtype=torch.float64)
    x = walk(steered.family, steered, steered.layouts, times, noise, watch)
    return Finished(x, steered.problems, [None] * len(batch))
