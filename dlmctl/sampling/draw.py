"""Draws to words: lay texts out, put those of like length into batches, walk each batch from noise to words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.combined import parts_of, prepare_all
from dlmctl.control.nan_checks import noted_on
from dlmctl.control.prepared import Part, Prepared, PreparedAll, has_own
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import Layouts, stacked
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, Unfit
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.batch_layout import batch_context, feasible, layout_of, prepared_on
from dlmctl.sampling.batches import BATCH_COST, BATCH_COST_GPU, ROOM, Batch, batches_of
from dlmctl.sampling.branches import by_way, first_possible, plans_for
from dlmctl.sampling.canvas_draw import draw_canvas, require_own
from dlmctl.sampling.environment import own_modes
from dlmctl.sampling.graphs import recordable
from dlmctl.sampling.latent_draw import check_latent, draw_latent
from dlmctl.sampling.masked_draw import draw_masked, sampler_name, steps_by_words
from dlmctl.sampling.particles import expanded, require_reward
from dlmctl.sampling.plan import DrawBatch, Job, Plan
from dlmctl.sampling.possible_draws import check_branches, most_texts, settled
from dlmctl.sampling.prompted import length_weights
from dlmctl.sampling.trace import Frame, Recorder
from dlmctl.sampling.unused_settings import require_used
from dlmctl.sampling.walk import OnStep, Step

# Texts of a batch that are shown as they are drawn: as many as a screen may have.
MOST_WATCHED = 60

Progress = Callable[[int, int], None]
"""Receives reverse steps done and reverse steps in all."""


class Drawing(NamedTuple):
    """How the texts of a family are drawn: ``batch`` by batch; ``check`` raises a RecipeError of settings of a sampler
    that are for another family."""

    batch: DrawBatch
    check: Callable[[SamplerSettings, Pretrained], object]


_MASKED = Drawing(draw_masked, lambda sampler, pretrained: sampler_name(sampler, None, pretrained.masked))
# By the names of the families.
DRAWS = {
    "gaussian": Drawing(draw_latent, lambda sampler, _: check_latent(sampler)),
    "masked": _MASKED,
    "tokens": _MASKED,
    "canvas": Drawing(draw_canvas, lambda sampler, _: require_own(sampler)),
    "uniform": _MASKED,
}


class Drawn(NamedTuple):
    """What came of one draw: words, their natural text, their embeddings ``[L, D]``, what went wrong with the guidance,
    if anything, the nats that the walk found the words to have, where the family knows, and how they came about, where
    that is asked."""

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
    """The texts of each batch as it is done, in the order of their lengths.

    How a matrix library rounds depends on the shapes it is given, so the company of a text shows in its last bits, and
    now and then in a word. With ``sampler.deterministic`` a text has none.

    Raises:
        UserError: the control has no weights for this model, or the model cannot satisfy it.
    """
    lengths: dict[int, list[float]] = {}
    if plan.prompt is not None and isinstance(plan.pretrained.model, DiffusionLM):
        samples = sorted({draw.sample for draw in draws})
        for some in [[sample] for sample in samples] if plan.sampler.deterministic else [samples]:
            lengths |= length_weights(plan.pretrained.latent, plan.prompt, some)
    # All of them before the first step, so that whatever cannot be done is said at once.
    with own_modes():
        ready = list(_ready(plan, draws, lengths))
    for number, (own, batch, control) in enumerate(ready):

        def watch(step: Step, number: int = number) -> Tensor | None:
            if progress is not None:
                progress(number * step.steps + step.number + 1, len(ready) * step.steps)
            return on_step(step.kept()) if on_step is not None else None

        with own_modes():
            texts = list(_draw_batch(own, batch, control, watch))
        yield texts


Ready = tuple[Plan, Batch, PreparedAll | None]
"""A batch that can be drawn: the plan on its way, its rows, and the controls prepared for them."""


def _ready(plan: Plan, draws: Sequence[Draw], lengths: Mapping[int, Sequence[float]]) -> Iterator[Ready]:
    """The draws in batches, those of each way by themselves; draws whose way is impossible go another one, and those
    whose layout is, are laid out anew."""
    for draw in draws[:1]:
        check_branches(plan, draw)
    for own, some in by_way([(next(plans_for(plan, draw)), draw) for draw in draws]):
        try:
            found = _ready_on(own, [(draw, layout_of(own, draw, lengths.get(draw.sample))) for draw in some])
        except RecipeError as error:
            if own.way is None and not isinstance(error, Unfit):
                raise
            others = by_way(settled(plan, own, some, lengths))
            found = [ready for other, rows in others for ready in _ready_on(other, rows)]
        yield from found


def _ready_on(plan: Plan, rows: Batch) -> list[Ready]:
    most = 1 if plan.sampler.deterministic else most_texts(plan, max(layout.positions for _, layout in rows))
    batches = [expanded(batch, plan.sampler.particles) for batch in _batches(plan, rows, most)]
    return [(plan, batch, feasible(plan, batch)) for batch in batches]


def _batches(plan: Plan, rows: Batch, most: int) -> Iterator[Batch]:
    """The rows in batches of at most ``most``, as they take least time on the model's device."""
    model = plan.pretrained.model
    cost, room = BATCH_COST_GPU, float("inf")
    if model.embeddings.device.type == "cpu":
        cost, room = BATCH_COST, ROOM / (len(model.embeddings) * plan.sampler.particles)
    for alike in _alike(plan, rows):
        yield from batches_of(alike, most, mixed=model.takes_mask, cost=cost, room=room)


def _alike(plan: Plan, rows: Batch) -> list[Batch]:
    """The rows that may share a batch, by their positions: sizes of blanks are open in all or in none; on a canvas
    prompts are of one length; and texts have as many words where their steps follow from that."""
    prompt = plan.prompt if plan.pretrained.model.family == "canvas" else None
    by_words = steps_by_words(plan.sampler, plan.pretrained.model)
    groups: dict[tuple[int, bool], Batch] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[1].positions):
        draw, layout = row
        length = len(prompt.text(draw.sample)) if prompt is not None else 0
        groups[layout.open if by_words else length, layout.sizes_open].append(row)
    return [groups[kind] for kind in sorted(groups)]


def prepared_for(plan: Plan, draws: Sequence[Draw]) -> tuple[Layouts, PreparedAll | None]:
    """The layouts of some draws on all the positions that a text over tokens may have, and the controls for them. All
    go the way of the first one, as they are drawn together.

    Raises:
        UserError: as ``draw_texts``.
    """

    def prepared(own: Plan) -> tuple[Layouts, PreparedAll | None]:
        rows = [(draw, layout_of(own, draw)._replace(positions=1 + plan.sampler.new_tokens)) for draw in draws]
        device = plan.pretrained.model.embeddings.device
        return stacked([layout for _, layout in rows], device), feasible(own, rows)

    return first_possible(plan, draws[0], prepared)


def check_settings(pretrained: Pretrained, sampler: SamplerSettings, guidance: Guidance, *, controlled: bool) -> None:
    """Refuse settings that mean nothing for a model, or cannot be had of it.

    Args:
        controlled: whether there is a control.

    Raises:
        RecipeError: the sampler is of another family, nothing reads a setting, or particles have nothing to go by.
    """
    family = pretrained.model.family
    DRAWS[family].check(sampler, pretrained)
    require_used(sampler, family)
    require_reward(sampler, controlled=controlled)
    if family != "gaussian" and guidance.method not in (None, "logits"):
        what = f"has no meaning for a model without latents, as those of the family {family!r} are."
        raise RecipeError(what, where="guidance.method", remedy="Leave guidance.method out.")


def _draw_batch(plan: Plan, batch: Batch, control: PreparedAll | None, watch: OnStep) -> Iterator[Drawn]:
    family = DRAWS[plan.pretrained.model.family]
    recorder = _recorder(plan, batch)
    device = plan.pretrained.model.embeddings.device
    noted = noted_on(device)

    def noting(control: PreparedAll | None) -> PreparedAll | None:
        return control if control is None or noted is None else control.noting(noted)

    with recordable(device):
        job = Job(plan, batch, noting(control), lambda part: noting(prepared_on(plan, part)), watch, recorder)
        ids, problems, nats = family.batch(job)
    if noted is not None:
        noted.look()
    with torch.no_grad():
        latents = plan.pretrained.model.embed(ids).float().cpu().numpy()
    rows = ids.tolist()
    if recorder is not None:
        recorder.finish(rows)
    tokenizer = plan.pretrained.tokenizer
    for row, (one, layout) in enumerate(batch[:: plan.sampler.particles]):
        words, text = tokenizer.words(rows[row]), tokenizer.decode(rows[row])
        frames = recorder.texts[row] if recorder is not None and one.sample in plan.traced else ()
        yield Drawn(one, words, text, latents[row, : layout.positions], problems.get(row), nats[row], frames)


def _recorder(plan: Plan, batch: Batch) -> Recorder | None:
    """What notes down the rows of a batch that are to be traced or watched, if there are any."""
    traced = [row for row, (draw, _) in enumerate(batch) if draw.sample in plan.traced]
    watched = range(len(batch))[: MOST_WATCHED * plan.sampler.particles] if plan.watch is not None else ()
    rows = sorted({*traced, *watched})
    if not rows:
        return None
    some = [batch[row] for row in rows]
    model = plan.pretrained.model
    # Prepared once more and for these rows alone, so that looking at the energies changes nothing of what guides.
    shown = _shown(plan, batch_context(plan, some)) if traced else []
    return Recorder(
        {row: batch[row][0] for row in rows},
        shown,
        stacked([layout for _, layout in some], model.embeddings.device),
        model.embeddings.detach(),
        plan.pretrained.tokenizer,
        plan.sampler.particles,
        plan.watch,
    )


def _shown(plan: Plan, batch: BatchContext[Any]) -> list[Part]:
    """The controls that stand side by side, each by its name with what guides on the way of these rows."""
    if plan.control is None or plan.way is None:
        return [] if plan.control is None else prepare_all(plan.control, batch).parts
    parts = []
    for whole, beside in zip(parts_of(plan.control), plan.way.beside, strict=True):
        guides = [part for part in prepare_all(beside, batch).parts if has_own(part.prepared, "energy")]
        together = guides[0].prepared if len(guides) == 1 else PreparedAll(guides) if guides else Prepared()
        parts.append(Part(whole.name, whole.weight, together))
    return parts
