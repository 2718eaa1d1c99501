"""Turn draws into words: lay texts out, batch those of similar length, and walk each batch from noise to words."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.combined import parts_of, prepare_all
from dlmctl.control.nan_checks import fault_log_for
from dlmctl.control.prepared import Part, Prepared, PreparedAll, overrides
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.canvas import CanvasLM
from dlmctl.diffusion.layout import Layouts, batch_layouts
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import LayoutError, RecipeError
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.batch_layout import batch_context, feasible, layout_of, prepare_batch
from dlmctl.sampling.batches import BATCH_COST, BATCH_COST_GPU, CHEAP_SCORES, Batch, batches_of
from dlmctl.sampling.branches import first_possible, group_by_branch, plans_for
from dlmctl.sampling.canvas_draw import draw_canvas, require_canvas_sampler
from dlmctl.sampling.graphs import recordable
from dlmctl.sampling.latent_draw import check_latent, draw_latent
from dlmctl.sampling.masked_draw import draw_masked, one_word_per_step, sampler_name, steps_by_words
from dlmctl.sampling.particles import expanded, require_reward
from dlmctl.sampling.plan import DrawBatch, Job, Plan
from dlmctl.sampling.possible_draws import check_branches, max_texts, possible_layouts
from dlmctl.sampling.prompted import length_weights
from dlmctl.sampling.text_blocks import attention_blocks
from dlmctl.sampling.trace import Frame, Recorder
from dlmctl.sampling.unused_settings import require_used
from dlmctl.sampling.walk import OnStep, Step

# Texts of a batch that are shown as they are drawn: at most as many as a screen has lines.
MAX_WATCHED = 60
# Texts whose controls stay prepared until they are drawn: they take up to a megabyte each. Later ones are prepared
# twice, to be checked and to be drawn.
MAX_PREPARED = 2048

Progress = Callable[[int, int], None]
"""Receives the number of reverse steps done and their total."""


class FamilySampler(NamedTuple):
    """How the texts of a family are drawn.

    Attributes:
        draw_batch: draws one batch.
        check: raises a RecipeError for sampler settings of another family.
    """

    draw_batch: DrawBatch
    check: Callable[[SamplerSettings, Pretrained], object]


_MASKED = FamilySampler(draw_masked, lambda sampler, pretrained: sampler_name(sampler, None, pretrained.masked))
# By family.
FAMILY_SAMPLERS = {
    "gaussian": FamilySampler(draw_latent, lambda sampler, _: check_latent(sampler)),
    "masked": _MASKED,
    "tokens": _MASKED,
    "canvas": FamilySampler(draw_canvas, lambda sampler, _: require_canvas_sampler(sampler)),
    "uniform": _MASKED,
}


class Drawn(NamedTuple):
    """The result of one draw: words, their natural text, their embeddings ``[L, D]``, the problem with its guidance, if
    any, the nats of the words according to the walk, if the family knows them, and its frames, if it is traced."""

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
    """Yield the texts of each batch as it is finished, in the order of their lengths.

    How a matrix library rounds depends on the shapes of its inputs, so the rest of the batch affects the last bits of a
    text, and now and then a word. With ``sampler.deterministic`` each text is a batch of its own.

    Raises:
        UserError: the control has no weights for this model, or the model cannot satisfy it.
    """
    lengths: dict[int, list[float]] = {}
    if plan.prompt is not None and isinstance(plan.pretrained.model, DiffusionLM):
        samples = sorted({draw.sample for draw in draws})
        for group in [[sample] for sample in samples] if plan.sampler.deterministic else [samples]:
            lengths |= length_weights(plan.pretrained.latent, plan.prompt, group)
    # All batches are prepared before the first step, so that anything impossible is reported at once.
    with own_modes(), torch.enable_grad():
        ready = deque(_ready(plan, draws, lengths))
    batch_count = len(ready)
    for number in range(batch_count):
        branch_plan, batch, control = ready.popleft()
        steps = 0

        def watch(step: Step, number: int = number) -> Tensor | None:
            nonlocal steps
            steps = step.steps
            if progress is not None:
                progress(number * steps + step.number + 1, batch_count * steps)
            return on_step(step.detached()) if on_step is not None else None

        with own_modes(), torch.enable_grad():
            control = prepare_batch(branch_plan, batch) if control is None else control
            texts = list(_draw_batch(branch_plan, batch, control, watch))
        if progress is not None and steps:
            progress((number + 1) * steps, batch_count * steps)  # the last steps may have been skipped
        yield texts


Ready = tuple[Plan, Batch, PreparedAll | None]
"""A batch that can be drawn: the plan with its branch, its rows, and the controls, if they stay prepared for them."""


def _ready(plan: Plan, draws: Sequence[Draw], lengths: Mapping[int, Sequence[float]]) -> Iterator[Ready]:
    """The draws in batches, one branch per batch; draws whose branch is impossible get another, and those whose layout
    is impossible are laid out anew."""
    for draw in draws[:1]:
        check_branches(plan, draw)
    prepared = 0
    for branch_plan, group in group_by_branch([(next(plans_for(plan, draw)), draw) for draw in draws]):
        try:
            rows = [(draw, layout_of(branch_plan, draw, lengths.get(draw.sample))) for draw in group]
            ready = _ready_batches(branch_plan, rows, prepared)
        except RecipeError as error:
            if branch_plan.branch is None and not isinstance(error, LayoutError):
                raise
            groups = group_by_branch(possible_layouts(plan, branch_plan, group, lengths))
            ready = [batch for other_plan, rows in groups for batch in _ready_batches(other_plan, rows, prepared)]
        prepared += sum(len(batch) for _, batch, _ in ready)
        yield from ready


def _ready_batches(plan: Plan, rows: Batch, prepared: int) -> list[Ready]:
    """The rows in batches; ``prepared`` texts come before them."""
    max_rows = 1 if plan.sampler.deterministic else max_texts(plan, max(layout.positions for _, layout in rows))
    batches = [expanded(batch, plan.sampler.particles) for batch in _batches(plan, rows, max_rows)]
    ready: list[Ready] = []
    for batch in batches:
        control, prepared = feasible(plan, batch), prepared + len(batch)
        ready.append((plan, batch, control if prepared <= MAX_PREPARED else None))
    return ready


def _batches(plan: Plan, rows: Batch, max_rows: int) -> Iterator[Batch]:
    """The rows in batches of at most ``max_rows``, chosen to take the least time on the model's device."""
    model = plan.pretrained.model
    batch_cost, cheap_positions = BATCH_COST_GPU, float("inf")
    if model.embeddings.device.type == "cpu":
        batch_cost, cheap_positions = BATCH_COST, CHEAP_SCORES / (len(model.embeddings) * plan.sampler.particles)
    for group in _groups(plan, rows):
        yield from batches_of(
            group, max_rows, mixed=model.takes_mask, batch_cost=batch_cost, cheap_positions=cheap_positions
        )


def _groups(plan: Plan, rows: Batch) -> list[Batch]:
    """Groups of rows that may share a batch, sorted by positions: the sizes of blanks are open in all or in none; on a
    canvas, prompts have the same length; texts have the same number of words and the same blocks if their steps depend
    on these; and over tokens, all texts have as many steps as places, or none has: exact controls work differently."""
    prompt = plan.prompt if plan.pretrained.model.family == "canvas" else None
    by_words = steps_by_words(plan.sampler, plan.pretrained.model)
    over_tokens = plan.pretrained.model.family == "tokens"
    groups: dict[tuple[int, int, bool, bool], Batch] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[1].positions):
        draw, layout = row
        prompt_length = len(prompt.text(draw.sample)) if prompt is not None else 0
        blocks = attention_blocks(plan, draw)
        places = layout.open if by_words else prompt_length
        one_each = over_tokens and one_word_per_step(plan.sampler, layout.open)
        groups[places, 0 if blocks is None else blocks.before, layout.sizes_open, one_each].append(row)
    return [groups[key] for key in sorted(groups)]


def prepared_for(plan: Plan, draws: Sequence[Draw], positions: int) -> tuple[Layouts, PreparedAll | None]:
    """The layouts of some draws on ``positions`` each, and the controls for them.

    All take the branch of the first draw, as they are drawn together.

    Raises:
        UserError: as ``draw_texts``.
    """

    def prepared(branch_plan: Plan) -> tuple[Layouts, PreparedAll | None]:
        rows = [(draw, layout_of(branch_plan, draw)._replace(positions=positions)) for draw in draws]
        device = plan.pretrained.model.embeddings.device
        return batch_layouts([layout for _, layout in rows], device), feasible(branch_plan, rows)

    return first_possible(plan, draws[0], prepared)


def check_settings(pretrained: Pretrained, sampler: SamplerSettings, guidance: Guidance, *, controlled: bool) -> None:
    """Refuse settings that are meaningless or impossible for a model.

    Args:
        controlled: whether there is a control.

    Raises:
        RecipeError: the sampler is of another family, a setting is unused, or particles have no reward.
    """
    family = pretrained.model.family
    FAMILY_SAMPLERS[family].check(sampler, pretrained)
    require_used(sampler, family, over_tokens=isinstance(pretrained.model, TokenLM | CanvasLM))
    require_reward(sampler, controlled=controlled)
    if family != "gaussian" and guidance.method not in (None, "logits"):
        what = f"has no meaning for a model of the family {family!r}, which has no latents."
        raise RecipeError(what, where="guidance.method", remedy="Leave guidance.method out.")


def _draw_batch(plan: Plan, batch: Batch, control: PreparedAll | None, watch: OnStep) -> Iterator[Drawn]:
    family = FAMILY_SAMPLERS[plan.pretrained.model.family]
    recorder = _recorder(plan, batch)
    device = plan.pretrained.model.embeddings.device
    noted = fault_log_for(device)

    def with_fault_log(control: PreparedAll | None) -> PreparedAll | None:
        return control if control is None or noted is None else control.with_fault_log(noted)

    with recordable(device):
        job = Job(
            plan,
            batch,
            with_fault_log(control),
            lambda part: with_fault_log(prepare_batch(plan, part)),
            watch,
            recorder,
        )
        ids, problems, nats = family.draw_batch(job)
    if noted is not None:
        noted.look()
    with torch.no_grad():
        latents = plan.pretrained.model.embed(ids).float().cpu().numpy()
    rows = ids.tolist()
    if recorder is not None:
        recorder.finish(rows)
    tokenizer = plan.pretrained.tokenizer
    for row, (draw, layout) in enumerate(batch[:: plan.sampler.particles]):
        words, text = tokenizer.words(rows[row]), tokenizer.decode(rows[row])
        frames = recorder.texts[row] if recorder is not None and draw.sample in plan.traced else ()
        yield Drawn(draw, words, text, latents[row, : layout.positions], problems.get(row), nats[row], frames)


def _recorder(plan: Plan, batch: Batch) -> Recorder | None:
    """The recorder of the rows of a batch that are traced or watched, if there are any."""
    traced = [row for row, (draw, _) in enumerate(batch) if draw.sample in plan.traced]
    watched = range(len(batch))[: MAX_WATCHED * plan.sampler.particles] if plan.watch is not None else ()
    rows = sorted({*traced, *watched})
    if not rows:
        return None
    followed = [batch[row] for row in rows]
    model = plan.pretrained.model
    # Prepared separately, for these rows alone, so that computing the energies does not affect guidance.
    parts = _traced_parts(plan, batch_context(plan, followed)) if traced else []
    return Recorder(
        {row: batch[row][0] for row in rows},
        parts,
        batch_layouts([layout for _, layout in followed], model.embeddings.device),
        model.embeddings.detach(),
        plan.pretrained.tokenizer,
        plan.sampler.particles,
        plan.watch,
    )


def _traced_parts(plan: Plan, batch: BatchContext[Any]) -> list[Part]:
    """The top-level controls, each under its name and with the part of it that guides in the branch of these rows."""
    if plan.control is None or plan.branch is None:
        return [] if plan.control is None else prepare_all(plan.control, batch).parts
    parts = []
    for control, branch_control in zip(parts_of(plan.control), plan.branch.beside, strict=True):
        guides = [part for part in prepare_all(branch_control, batch).parts if overrides(part.prepared, "energy")]
        prepared = guides[0].prepared if len(guides) == 1 else PreparedAll(guides) if guides else Prepared()
        parts.append(Part(control.name, control.weight, prepared))
    return parts
