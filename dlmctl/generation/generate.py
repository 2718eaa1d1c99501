"""Generate checked texts with a model, with or without a control."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control
from dlmctl.control.user_files import one_version
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.errors import RecipeError, UserError, readable
from dlmctl.generation.arguments import check_arguments, read_extent, read_rounds, read_settings, read_traced, whole
from dlmctl.generation.options import ObserverOptions
from dlmctl.generation.prompts import Label, PromptLike, read_prompt
from dlmctl.generation.results import Generation
from dlmctl.generation.rounds import Callbacks, Rounds, draw_rounds
from dlmctl.generation.sample_groups import SINGLE_GROUP, SampleGroups, in_groups
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.presets import Preset, settings_of
from dlmctl.recipe.recipe import DEFAULT_MODEL, Recipe
from dlmctl.recipe.settings import Criterion, Guidance, Quota, SamplerSettings, Until
from dlmctl.recipe.yaml_file import SettingsFile
from dlmctl.sampling.device import choose_device
from dlmctl.sampling.device_map import move_to_device
from dlmctl.sampling.draw import Progress, check_settings
from dlmctl.sampling.environment import environment, one_thread
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.prompted import Prompt
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep
from dlmctl.text.fields import Source


def require_plain(recipe: Recipe, origin: SettingsFile | None) -> None:
    """Check that a recipe generates plain texts, not matched sets.

    Raises:
        RecipeError: it is a recipe of matched sets.
    """
    if isinstance(recipe, MatchedRecipe):
        message = "this is a recipe of matched sets."
        remedy = "Run it with `dlmctl matched --recipe ...`, in Python with `dlmctl.matched(...)`."
        raise RecipeError(message, where=None if origin is None else origin.where(("conditions",)), remedy=remedy)


def draw_recipe(
    recipe: Recipe,
    control: Control[Any] | None,
    pretrained: Pretrained,
    prompt: Prompt | None,
    *,
    samples: Sequence[int] | None = None,
    groups: SampleGroups = SINGLE_GROUP,
    **observers: Unpack[ObserverOptions],
) -> Generation:
    """Generate texts under a control with the settings of a recipe; arguments and errors as for ``generate``."""
    return generate(
        control,
        model=pretrained,
        given=prompt,
        samples=recipe.samples if samples is None else samples,
        seed=recipe.seed,
        sampler=recipe.sampler,
        guidance=recipe.guidance,
        until=recipe.until,
        quota=recipe.quota or False,
        unique=recipe.unique,
        candidates=recipe.candidates,
        rank_by=recipe.rank_by,
        second_scorer=recipe.second_scorer,
        batch_size=recipe.batch_size,
        device=recipe.device,
        groups=groups,
        **observers,
    )


@one_version()
@own_modes()
def generate(
    control: Control[Any] | None = None,
    *,
    model: str | Path | Pretrained = DEFAULT_MODEL,
    label: Label | Sequence[Label] | None = None,
    source: Source | Sequence[Source] | None = None,
    prompt: PromptLike | Sequence[PromptLike] | None = None,
    given: Prompt | None = None,
    samples: int | Sequence[int] = 8,
    seed: int = 0,
    preset: Preset = "balanced",
    sampler: SamplerSettings | Mapping[str, Any] | None = None,
    guidance: Guidance | Mapping[str, Any] | None = None,
    until: Until | Mapping[str, Any] | None = None,
    quota: Quota | Mapping[str, Any] | bool = False,
    unique: bool = False,
    candidates: int = 1,
    rank_by: Criterion | Sequence[Criterion] = ("satisfaction",),
    scorer: str | Path | None = None,
    second_scorer: str | Path | None = None,
    batch_size: int = 64,
    deterministic: bool = False,
    device: str = "auto",
    groups: SampleGroups = SINGLE_GROUP,
    progress: Progress | None = None,
    on_step: OnStep | None = None,
    trace: bool | int | Sequence[int] = False,
    watch: OnFrames | None = None,
) -> Generation:
    """Generate texts with a diffusion LM, with or without a control.

    Args:
        control: what the texts must satisfy, e.g. ``Pos(tags=[...])``; controls combine with ``&``, ``|``, ``~``.
        model: a bundled name, a folder, a hub name, or a model already loaded.
        label: for models with labels, the label of the texts, or a list assigned to them in turn.
        source, prompt: what to write from, for models with a source or over tokens; or a list assigned in turn.
        given: the prompt as token ids, in place of label, source and prompt; see ``prompts.read_prompt``.
        samples: how many texts, or the sample numbers to draw; parameter sets are assigned to samples by number.
        seed: each sample depends on the seed and its own number only, except for rounding within its batch.
        preset: the defaults of ``sampler`` and ``guidance``; a dict of settings overrides parts of it.
        until, quota: draw again what is not good enough, or until all texts pass and differ; unique: no text twice.
        candidates: texts drawn for each sample in each round; the best by ``rank_by`` is kept, see ``ranking``.
        scorer: what scores the texts in place of the model's scorer; second_scorer: what ``fluency`` also uses.
        deterministic: draw each text alone on one CPU thread, so that it is bit-identical at any batch size.
        device: ``auto`` uses a GPU, if there is one and texts are not deterministic; groups: those of a longer run.
        trace: samples whose words and energies are recorded at every step: all, the first N, or by number.
        on_step, watch: called at every step of every batch; ``watch`` with the words of up to ``MAX_WATCHED`` texts.

    Raises:
        UserError: a model, weights or device is missing, or the model cannot do or satisfy what is requested.
    """
    check_arguments(control, model, preset, progress=progress, on_step=on_step, watch=watch)
    rounds = read_rounds(samples, seed, until, candidates, rank_by, second_scorer)
    traced = read_traced(trace, rounds.numbers)
    pretrained = _loaded(model, scorer)
    rounds = in_groups(rounds, control, pretrained, groups, read_extent(quota, unique), until is None)
    chosen = read_settings(settings_of(preset, pretrained.model.family), sampler, guidance, deterministic=deterministic)
    given = given or read_prompt(pretrained, label, source, prompt)
    plan = Plan(pretrained, control, *chosen, whole("batch_size", batch_size), given, traced, watch)
    return _draw(plan, rounds, device, Callbacks(progress, on_step))


def _loaded(model: str | Path | Pretrained, scorer: str | Path | None) -> Pretrained:
    pretrained = model if isinstance(model, Pretrained) else from_pretrained(model)
    if scorer is None:
        return pretrained
    if not isinstance(scorer, str | Path):
        what = f"must be a folder or a name, not {readable(repr(scorer), 60)}."
        raise UserError(what, where="scorer", remedy='E.g. scorer="everyday".')
    return pretrained.scored_by(scorer)


def _draw(plan: Plan, rounds: Rounds, device: str, callbacks: Callbacks) -> Generation:
    start = time.perf_counter()
    check_settings(plan.pretrained, plan.sampler, plan.guidance, controlled=plan.control is not None)
    run_device = choose_device(device, deterministic=plan.sampler.deterministic)
    move_to_device(plan.pretrained.model, run_device)
    if plan.control is not None:
        plan = plan._replace(control=plan.control.for_model(plan.pretrained))
    with one_thread(plan.sampler.deterministic):
        best = draw_rounds(plan, rounds, callbacks)
    if plan.prompt is not None and plan.prompt.listed:
        best = [replace(sample, prompted=plan.prompt.entries(sample.index)) for sample in best]
    return Generation(best, time.perf_counter() - start, environment(plan.sampler, run_device, plan.batch_size))
