"""A batch of masked texts from MASK to words: the masked family."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.control.prepared import PreparedAll, has_own
from dlmctl.diffusion.absorbing import Absorbing, in_pieces
from dlmctl.diffusion.blocks import Stretch, in_blocks
from dlmctl.diffusion.layout import Layout, Layouts, even_logits, stacked
from dlmctl.diffusion.masked_base import Context, MaskedModel
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.diffusion.uniform import UniformWalk
from dlmctl.diffusion.walks import WALKS, WalkSettings
from dlmctl.errors import RecipeError
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.batches import Batch
from dlmctl.sampling.device import networks_in
from dlmctl.sampling.graphs import pays
from dlmctl.sampling.open_places import OpenSteered, each_place_alone
from dlmctl.sampling.particles import particles_for
from dlmctl.sampling.plan import Finished, Job, Plan
from dlmctl.sampling.steering import Steered, weighted_sum
from dlmctl.sampling.walk import walk
from dlmctl.text.tokenizer import Tokenizer

KINDS: dict[str, type[Absorbing]] = {"masked": Absorbing, "tokens": Absorbing, "uniform": UniformWalk}

# They write each open place by chance, not a number of places.
BY_CHANCE = ("ancestral", "remasking")
# They draw a word for every open place and keep the likeliest draws, so what stays was not drawn by its probability.
SUREST_DRAWS = ("confidence", "low_confidence")


@torch.no_grad()
def draw_masked(job: Job) -> Finished:
    """The token ids of a batch. With ``sampler.steps`` not given, each step writes one token of each text.

    Where the controls leave one word it stands from the start: the others are written around it, and it takes no step.

    Raises:
        RecipeError: the sampler is of another family, or has fewer steps than blocks.
    """
    plan, batch, control, _, watch, recorder = job
    model, sampler = plan.pretrained.masked, plan.sampler
    layouts = stacked([layout for _, layout in batch], model.embeddings.device)
    noise = SampleNoise([draw for draw, _ in batch], positions=[layout.positions for _, layout in batch])
    vocabulary = plan.pretrained.tokenizer
    places = torch.where(layouts.words >= 0, layouts.words, layouts.positions - 1)
    given = None if control is None else only_words(control, layouts, vocabulary, len(model.embeddings))
    # What leads the words, beside what holds them: at scale 0 the network is not told of it either.
    leads = control if plan.guidance.scale else None
    name = sampler_name(sampler, leads, model)
    counts = name not in BY_CHANCE
    one_each = _most_open(places, given) if counts and sampler.block is None else int(places.max())
    # Where a step writes a number of places, those behind the last place would write nothing.
    ends = counts and model.family != "uniform"
    steps = min(sampler.steps or one_each, one_each) if ends else sampler.steps or one_each
    settings = WalkSettings(model.mask_id, sampler.temperature, sampler.min_p, remask=sampler.remask)
    schedule = _schedule(steps, int(places.max()), sampler.block)
    tags, context = aligned_tags(model, leads, layouts), context_of(plan, batch, layouts.words.device)
    kind = KINDS[model.family]
    family = kind(model, vocabulary, WALKS[name], settings, schedule, tags, context, given, hints_of(leads))
    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    alone = steps >= one_each and counts
    whole_until = family.whole_until(times, alone=alone)
    recorded = sampler.compile and pays(layouts.words.device, model.family, steps)
    by_place = in_pieces(layouts.words.device) and not recorded and kind is Absorbing and sampler.particles == 1
    steers = OpenSteered if by_place and each_place_alone(control) else Steered
    asked = family, model.embeddings, vocabulary, control, plan.guidance, sampler, layouts
    steered = steers(*asked, whole_until=whole_until, recorded=recorded)
    steered.recorder = recorder
    with networks_in(sampler.precision, layouts.words.device):
        particles = particles_for(plan, batch, steered)
        x = walk(family, steered, layouts, times, noise, watch, particles)
        nats = [None] * len(batch) if family.nats is None else family.nats.tolist()
        found = Finished(x, steered.problems, nats)
        return found if particles is None else particles.finish(found, len(model.embeddings))


def only_words(control: PreparedAll, layouts: Layouts, vocabulary: Tokenizer, size: int) -> Tensor | None:
    """The word ``[B, L]`` of each place where only one of the ``size`` words may stand, -1 of the others; None where no
    control rules words out."""
    if not any(has_own(part.prepared, "restrict") for part in control.parts):
        return None
    allowed = ~control.restrict(even_logits(layouts, vocabulary, size)).isneginf()
    return torch.where(allowed.sum(-1) == 1, allowed.to(torch.uint8).argmax(-1), -1)


def _most_open(places: Tensor, given: Tensor | None) -> int:
    """The words to be written in the text that has most of them."""
    if given is None:
        return int(places.max())
    place = torch.arange(given.shape[1], device=given.device)
    is_open = (place > 0) & (place <= places[:, None]) & (given < 0)
    return max(1, int(is_open.sum(1).max()))


def _schedule(steps: int, places: int, block: int | None) -> list[Stretch]:
    try:
        return in_blocks(steps, places, block)
    except ValueError as error:
        raise RecipeError(f"{error}.", where="sampler.block", remedy="Give more steps, or larger blocks.") from None


def require_steps(sampler: SamplerSettings, layout: Layout) -> None:
    """Check that there are steps enough for the blocks of a text.

    Raises:
        RecipeError: there are fewer steps than blocks.
    """
    if sampler.block is not None and sampler.steps is not None:
        _schedule(sampler.steps, layout.open, sampler.block)


def context_of(plan: Plan, batch: Batch, device: torch.device) -> Context | None:
    """The prompts of the rows of a batch; None where none is given."""
    if plan.prompt is None or not plan.prompt.texts:
        return None
    rows = [plan.prompt.text(draw.sample) for draw, _ in batch]
    width, pad = max(map(len, rows)), plan.pretrained.tokenizer.pad_id
    ids = torch.tensor([[*[pad] * (width - len(row)), *row] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return Context(ids, torch.arange(width, device=device) >= width - lengths[:, None])


def sampler_name(sampler: SamplerSettings, control: PreparedAll | None, model: MaskedModel) -> str:
    """The walk asked for; ``auto`` is that of a checkpoint's authors. Of models that were trained here it writes the
    surest word first where guidance says what stands at a place, and else where the entropy is least: guided to one
    label, the surest words are always the same.

    Raises:
        RecipeError: the sampler is of another family, or it says nothing of how likely a draw was and there are
            particles, which are weighed by that.
    """
    if model.family == "uniform" and (sampler.name not in ("auto", "ancestral") or sampler.block is not None):
        what = "a uniform model draws all of its words anew at every step, and has no other sampler and no blocks."
        raise RecipeError(what, where="sampler", remedy="Leave sampler.name and sampler.block out.")
    weighed = sampler.particles > 1
    if sampler.name == "auto" and isinstance(model, TokenLM):
        own = model.config.sampler
        return "entropy" if weighed and own in SUREST_DRAWS else own
    if sampler.name == "auto":
        # What only checks says nothing of a place.
        guides = [part.prepared for part in control.guides] if control is not None else []
        guided = any(not prepared.exact and not prepared.weighs for prepared in guides)
        return "confidence" if guided and not weighed else "entropy"
    if weighed and sampler.name in SUREST_DRAWS:
        what = f"{sampler.name!r} keeps the likeliest words it draws, and how likely a draw was weighs the particles."
        raise RecipeError(what, where="sampler.name", remedy="Take auto, entropy, margin or random.")
    if sampler.name not in WALKS:
        what = f"{sampler.name!r} is a sampler of latents, and this model is a masked one."
        raise RecipeError(what, where="sampler.name", remedy=f"Take auto or one of {', '.join(WALKS)}.")
    return sampler.name


def steps_by_words(sampler: SamplerSettings, model: DiffusionLM | MaskedModel) -> bool:
    """Whether the times of a text's steps follow from how many words it has, so that only texts of as many may share a
    batch."""
    if model.family not in KINDS:
        return False
    by_chance = sampler.name in BY_CHANCE or model.family == "uniform"
    return sampler.block is not None or (sampler.steps is None and by_chance)


def hints_of(control: PreparedAll | None) -> Tensor | None:
    """What all controls tell the network ``[layers, B, L, H]``, each by its weight; None where none says anything."""
    return None if control is None else weighted_sum(control.parts, lambda prepared: prepared.hints)


def aligned_tags(model: MaskedModel, control: PreparedAll | None, layouts: Layouts) -> Tensor | None:
    """The label of each position ``[B, L]`` for models that read some, 0 where none is given.

    Of several controls that give a label to a word the first counts; one of weight 0 says nothing.
    """
    parts = control.parts if control is not None else []
    rows = [part.prepared.tags for part in parts if part.weight and part.prepared.tags is not None]
    if not rows or not model.config.tags:
        return None
    number = {name: at for at, name in enumerate(model.config.tags, start=1)}
    tags = [[0] * layouts.length for _ in range(len(layouts.words))]
    for given in reversed(rows):
        for row, names in zip(tags, given, strict=True):
            for place, name in enumerate(names[: layouts.length - 1], start=1):
                row[place] = number.get(name, row[place])
    return torch.tensor(tags, device=layouts.words.device)
