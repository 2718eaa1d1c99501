"""Draw a batch of texts from MASK to words: the masked family."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlmctl.control.prepared import PreparedAll, overrides
from dlmctl.diffusion.absorbing import Absorbing, processes_in_chunks
from dlmctl.diffusion.blocks import BlockStep, block_schedule
from dlmctl.diffusion.layout import Layout, Layouts, batch_layouts, uniform_logits
from dlmctl.diffusion.masked_base import Context, MaskedModel
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.diffusion.uniform import UniformWalk
from dlmctl.diffusion.walks import LIKELIEST_DRAWS, RANDOM_PLACES, WALKS, WalkSettings
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.graphs import is_faster_recorded
from dlmctl.sampling.open_places import OpenSteered, steers_places_independently
from dlmctl.sampling.particles import particles_for
from dlmctl.sampling.plan import Finished, Job, Plan
from dlmctl.sampling.steering import Steered, weighted_sum
from dlmctl.sampling.text_blocks import attention_blocks, block_size, first_block
from dlmctl.sampling.walk import walk
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer
from dlmctl.text.tokenizer import Tokenizer

WALK_FAMILIES: dict[str, type[Absorbing]] = {"masked": Absorbing, "tokens": Absorbing, "uniform": UniformWalk}


@torch.no_grad()
def draw_masked(job: Job) -> Finished:
    """Draw the token ids of a batch. If ``sampler.steps`` is not set, each step writes one token of each text.

    Places where the controls leave only one word are filled from the start and take no step.

    Raises:
        RecipeError: the sampler is for another family, or has fewer steps than blocks.
    """
    plan, batch, control, _, watch, recorder = job
    model, sampler = plan.pretrained.masked, plan.sampler
    layouts = batch_layouts([layout for _, layout in batch], model.embeddings.device)
    noise = SampleNoise([draw for draw, _ in batch], positions=[layout.positions for _, layout in batch])
    vocabulary = plan.pretrained.tokenizer
    family, steps = _planned_walk(plan, batch, layouts, control)
    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    recorded = sampler.compile and is_faster_recorded(layouts.words.device, model.family, steps)
    scores_open_places = (
        processes_in_chunks(layouts.words.device)
        and not recorded
        and type(family) is Absorbing
        and sampler.particles == 1
    )
    steered_class = OpenSteered if scores_open_places and steers_places_independently(control) else Steered
    arguments = family, model.embeddings, vocabulary, control, plan.guidance, sampler, layouts
    joint_until, draws_texts = family.joint_until(times), family.draw is not None
    steered = steered_class(*arguments, joint_until=joint_until, recorded=recorded, draws_texts=draws_texts)
    steered.recorder = recorder
    with networks_in(sampler.precision, layouts.words.device):
        particles = particles_for(plan, batch, steered)
        x = walk(family, steered, layouts, times, noise, watch, particles)
        text_nats = family.text_nats(x)
        nats = [None] * len(batch) if text_nats is None else text_nats.tolist()
        x = x.masked_fill(x == model.mask_id, vocabulary.pad_id)  # what follows the end of a text
        finished = Finished(x, steered.problems, nats)
        return finished if particles is None else particles.finish(finished, len(model.embeddings))


def _planned_walk(plan: Plan, batch: Batch, layouts: Layouts, control: PreparedAll | None) -> tuple[Absorbing, int]:
    """The family of a batch with its schedule, and its number of steps."""
    model, sampler, vocabulary = plan.pretrained.masked, plan.sampler, plan.pretrained.tokenizer
    places = torch.where(layouts.words >= 0, layouts.words, layouts.positions - 1)
    fixed_words = None if control is None else forced_words(control, layouts, vocabulary, len(model.embeddings))
    # At scale 0 the network gets no hints from the controls either.
    guiding = control if plan.guidance.scale else None
    walk_of_words = WALKS[sampler_name(sampler, guiding, model)]
    writes_counts = walk_of_words not in RANDOM_PLACES
    block = block_size(sampler, model)
    max_open = _max_open(places, fixed_words) if writes_counts and block is None else int(places.max())
    # If each step writes a fixed number of places, steps after the last place would write nothing.
    limits_steps = writes_counts and model.family != "uniform"
    steps = min(sampler.steps or max_open, max_open) if limits_steps else sampler.steps or max_open
    # Over tokens it is the same for all texts of a group, whatever words controls fix.
    most = max_open if model.family == "masked" else int(places.max())
    one_by_one = writes_counts and sampler.threshold is None and one_word_per_step(sampler, most)
    family = WALK_FAMILIES[model.family](
        model,
        vocabulary,
        walk_of_words,
        WalkSettings(model.mask_id, sampler.temperature, sampler.min_p, sampler.remask, sampler.threshold),
        _schedule(plan, batch[0][0], steps, int(places.max())),
        tags=aligned_tags(model, guiding, layouts),
        context=context_of(plan, batch, layouts.words.device),
        given=fixed_words,
        hints=hints_of(guiding),
        draw=None if one_by_one or model.family == "uniform" else exact_draw(control),
        stops=_stops(vocabulary, layouts),
        blocks=attention_blocks(plan, batch[0][0]),
        looks_ahead=control is not None,
    )
    return family, steps


def forced_words(control: PreparedAll, layouts: Layouts, vocabulary: Tokenizer, size: int) -> Tensor | None:
    """The word ``[B, L]`` at each place where only one of the ``size`` words is allowed, -1 elsewhere; None if no
    control rules words out."""
    if not any(overrides(part.prepared, "restrict") for part in control.parts):
        return None
    allowed = ~control.restrict(uniform_logits(layouts, vocabulary, size)).isneginf()
    return torch.where(allowed.sum(-1) == 1, allowed.to(torch.uint8).argmax(-1), -1)


def _max_open(places: Tensor, fixed_words: Tensor | None) -> int:
    """The largest number of words to be written in any text."""
    if fixed_words is None:
        return int(places.max())
    place = torch.arange(fixed_words.shape[1], device=fixed_words.device)
    is_open = (place > 0) & (place <= places[:, None]) & (fixed_words < 0)
    return max(1, int(is_open.sum(1).max()))


def _stops(vocabulary: Tokenizer, layouts: Layouts) -> Tensor | None:
    """The ids of the tokens that end a text, for models that write them."""
    if not isinstance(vocabulary, CheckpointTokenizer) or bool((layouts.words >= 0).any()):
        return None
    return torch.tensor(sorted(vocabulary.stop_ids - {vocabulary.mask_id}), device=layouts.words.device)


def _schedule(plan: Plan, draw: Draw, steps: int, places: int) -> list[BlockStep]:
    block = block_size(plan.sampler, plan.pretrained.model)
    try:
        return block_schedule(steps, places, block, first_block(plan, draw))
    except ValueError as error:
        where, remedy = "sampler.block", "Give more steps, or larger blocks."
        if block != plan.sampler.block:
            where, remedy = "sampler.steps", f"Give more steps: the model attends by blocks of {block}."
        raise RecipeError(f"{error}.", where=where, remedy=remedy) from None


def require_steps(plan: Plan, draw: Draw, layout: Layout) -> None:
    """Check that there are enough steps for the blocks of a text.

    Raises:
        RecipeError: there are fewer steps than blocks.
    """
    if plan.sampler.steps is not None and block_size(plan.sampler, plan.pretrained.model) is not None:
        _schedule(plan, draw, plan.sampler.steps, layout.open)


def context_of(plan: Plan, batch: Batch, device: torch.device) -> Context | None:
    """The prompts of the rows of a batch; None if there are none."""
    if plan.prompt is None or not plan.prompt.texts:
        return None
    rows = [plan.prompt.text(draw.sample) for draw, _ in batch]
    width, pad = max(map(len, rows)), plan.pretrained.tokenizer.pad_id
    ids = torch.tensor([[*[pad] * (width - len(row)), *row] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return Context(ids, torch.arange(width, device=device) >= width - lengths[:, None])


def sampler_name(sampler: SamplerSettings, control: PreparedAll | None, model: MaskedModel) -> str:
    """The requested walk. ``auto`` is that of a checkpoint's authors; for models trained with this toolkit it is
    ``confidence`` (the surest word first) if guidance acts on single places, else ``entropy`` (the lowest entropy
    first): under guidance to one label, the surest words are always the same.

    Raises:
        RecipeError: the sampler is for another family, or it gives no probability of its draws, which the weights of
            particles need.
    """
    if model.family == "uniform" and (sampler.name not in ("auto", "ancestral") or sampler.block is not None):
        what = "a uniform model redraws all words at every step, and has no other sampler and no blocks."
        raise RecipeError(what, where="sampler", remedy="Leave sampler.name and sampler.block out.")
    has_particles = sampler.particles > 1
    if sampler.threshold is not None:
        return _name_by_probability(sampler, model)
    if sampler.name == "auto" and isinstance(model, TokenLM):
        model_sampler = model.config.sampler
        return "entropy" if has_particles and model_sampler in LIKELIEST_DRAWS else model_sampler
    if sampler.name == "auto":
        # Controls that only check do not act on places.
        guides = [part.prepared for part in control.guides] if control is not None else []
        guided = any(not prepared.exact and not prepared.weighs for prepared in guides)
        return "confidence" if guided and not has_particles else "entropy"
    if has_particles and sampler.name in LIKELIEST_DRAWS:
        what = f"{sampler.name!r} keeps the likeliest of its draws, whose probabilities cannot weight the particles."
        raise RecipeError(what, where="sampler.name", remedy="Take auto, entropy, margin or random.")
    if sampler.name not in WALKS:
        what = f"{sampler.name!r} is a sampler of latents, and this model is a masked one."
        raise RecipeError(what, where="sampler.name", remedy=f"Take auto or one of {', '.join(WALKS)}.")
    return sampler.name


def _name_by_probability(sampler: SamplerSettings, model: MaskedModel) -> str:
    """The requested walk where a threshold of probability says which words are written."""
    if sampler.particles > 1 or model.family == "uniform" or sampler.name not in ("auto", *LIKELIEST_DRAWS):
        what = "needs a sampler that writes the words of the highest probability first, without particles."
        raise RecipeError(what, where="sampler.threshold", remedy=f"Take auto or one of {', '.join(LIKELIEST_DRAWS)}.")
    if sampler.name != "auto":
        return sampler.name
    return "low_confidence" if isinstance(model, TokenLM) else "confidence"


def steps_by_words(sampler: SamplerSettings, model: DiffusionLM | MaskedModel) -> bool:
    """Whether the steps of a text depend on its number of words, so that only texts of the same number may share a
    batch."""
    if isinstance(model, DiffusionLM) or model.family not in WALK_FAMILIES:
        return False
    # Controls decide between walks that write at places of their own choice only.
    at_random = model.family == "uniform" or WALKS[sampler_name(sampler, None, model)] in RANDOM_PLACES
    return block_size(sampler, model) is not None or (sampler.steps is None and at_random)


def one_word_per_step(sampler: SamplerSettings, places: int) -> bool:
    """Whether there are as many steps as open places."""
    return sampler.steps is None or sampler.steps >= places


def exact_draw(control: PreparedAll | None) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Draws texts that satisfy the constraints that hold exactly over several places (``Prepared.draw``); None without
    any."""
    parts = [] if control is None else control.parts
    exact = [part for part in parts if part.prepared.exact and overrides(part.prepared, "constrain")]
    return PreparedAll(exact).draw if exact else None


def hints_of(control: PreparedAll | None) -> Tensor | None:
    """The weighted sum ``[layers, B, L, H]`` of the controls' hints for the network; None if no control has any."""
    return None if control is None else weighted_sum(control.parts, lambda prepared: prepared.hints)


def aligned_tags(model: MaskedModel, control: PreparedAll | None, layouts: Layouts) -> Tensor | None:
    """The label of each position ``[B, L]`` for models that read labels, 0 for none.

    If several controls label a word, the first counts; controls of weight 0 are ignored.
    """
    parts = control.parts if control is not None else []
    rows = [part.prepared.tags for part in parts if part.weight and part.prepared.tags is not None]
    if not rows or not model.config.tags:
        return None
    tag_ids = {name: tag_id for tag_id, name in enumerate(model.config.tags, start=1)}
    tags = [[0] * layouts.length for _ in range(len(layouts.words))]
    for control_tags in reversed(rows):
        for row, names in zip(tags, control_tags, strict=True):
            for place, name in enumerate(names[: layouts.length - 1], start=1):
                row[place] = tag_ids.get(name, row[place])
    return torch.tensor(tags, device=layouts.words.device)
