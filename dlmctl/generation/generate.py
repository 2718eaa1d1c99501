"""Checked texts of a model, under a control or freely."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control
from dlmctl.errors import RecipeError
from dlmctl.generation.arguments import check_given, read_extent, read_rounds, read_settings, read_traced, whole
from dlmctl.generation.options import Look
from dlmctl.generation.prompts import Label, PromptLike, read_prompt
from dlmctl.generation.results import Generation
from dlmctl.generation.rounds import Rounds, Watching, draw_rounds
from dlmctl.generation.sample_groups import ALONE, SampleGroups, with_company
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.presets import Preset, settings_of
from dlmctl.recipe.recipe import DEFAULT_MODEL, Recipe
from dlmctl.recipe.settings import Criterion, Guidance, Quota, SamplerSettings, Until
from dlmctl.recipe.yaml_file import SettingsFile
from dlmctl.sampling.device import choose_device
from dlmctl.sampling.device_map import put_on
from dlmctl.sampling.draw import Progress, check_settings
from dlmctl.sampling.environment import environment, one_thread
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.prompted import Prompt
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep
from dlmctl.text.fields import Given


def require_plain(recipe: Recipe, origin: SettingsFile | None) -> None:
    """Refuse a recipe of matched sets where one of texts is needed.

    Raises:
        RecipeError: it is one.
    """
    if isinstance(recipe, MatchedRecipe):
        what = "this is a recipe of matched sets."
        remedy = "Run it with `dlmctl matched --recipe ...`, in Python with `dlmctl.matched(...)`."
        raise RecipeError(what, where=None if origin is None else origin.where(("conditions",)), remedy=remedy)


def draw_recipe(
    recipe: Recipe,
    control: Control[Any] | None,
    pretrained: Pretrained,
    given: Prompt | None,
    *,
    samples: Sequence[int] | None = None,
    company: SampleGroups = ALONE,
    **look: Unpack[Look],
) -> Generation:
    """The texts of a recipe under a control, with its settings; arguments and errors as ``generate``."""
    return generate(
        control,
        model=pretrained,
        given=given,
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
        company=company,
        **look,
    )


def generate(
    control: Control[Any] | None = None,
    *,
    model: str | Path | Pretrained = DEFAULT_MODEL,
    label: Label | Sequence[Label] | None = None,
    source: Given | Sequence[Given] | None = None,
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
    second_scorer: str | Path | None = None,
    batch_size: int = 64,
    deterministic: bool = False,
    device: str = "auto",
    company: SampleGroups = ALONE,
    progress: Progress | None = None,
    on_step: OnStep | None = None,
    trace: bool | int | Sequence[int] = False,
    watch: OnFrames | None = None,
) -> Generation:
    """Texts of a diffusion LM, under a control or freely.

    Args:
        control: what the texts must satisfy, e.g. ``Pos(tags=[...])``; controls combine with ``&``, ``|``, ``~``.
        model: a bundled name, a folder, a hub name, or a model already loaded.
        label: of a model with labels, the one that the texts are to have, or a list dealt out to them in turn.
        source, prompt: what to write from, of a model with a source, or over tokens; or a list of such.
        given: in place of label, source and prompt, as ids already; see ``prompts.read_prompt``.
        samples: how many texts, or the numbers of some of a run's; sets of parameters are dealt out to them by number.
        seed: each sample follows from the seed and its own number, but for the rounding of its batch.
        preset: what ``sampler`` and ``guidance`` are where they are not given; a dict of some settings is laid over it.
        until, quota: draw again what is not good enough, or until all pass and differ; unique: no text comes twice.
        candidates: texts drawn for each sample in each round; the best by ``rank_by`` is kept, see ``ranking``.
        second_scorer: a causal language model of Hugging Face that ``fluency`` asks too, by folder or hub name.
        deterministic: each text alone on one thread of the CPU, and so to the last bit the same at any batch size.
        device: ``auto`` takes a GPU if there is one, but not where the texts are to be deterministic.
        company: what the samples share with others of a longer run.
        trace: of which samples to keep words and energies of every step: all, the first so many, or by number.
        on_step, watch: see every reverse step of every batch; ``watch`` the words of up to ``MOST_WATCHED`` texts.

    Raises:
        UserError: a model, weights or device that is not there, or what the model cannot do or satisfy.
    """
    check_given(control, model, preset)
    rounds = read_rounds(samples, seed, until, candidates, rank_by, second_scorer)
    traced = read_traced(trace, rounds.numbers)
    pretrained = model if isinstance(model, Pretrained) else from_pretrained(model)
    rounds = with_company(rounds, control, pretrained, company, read_extent(quota, unique), until is None)
    chosen = read_settings(settings_of(preset, pretrained.model.family), sampler, guidance, deterministic=deterministic)
    given = given or read_prompt(pretrained, label, source, prompt)
    plan = Plan(pretrained, control, *chosen, whole("batch_size", batch_size), given, traced, watch)
    return _generated(plan, rounds, device, Watching(progress, on_step))


def _generated(plan: Plan, rounds: Rounds, device: str, watching: Watching) -> Generation:
    started = time.perf_counter()
    check_settings(plan.pretrained, plan.sampler, plan.guidance, controlled=plan.control is not None)
    place = choose_device(device, deterministic=plan.sampler.deterministic)
    put_on(plan.pretrained.model, place)
    if plan.control is not None:
        plan = plan._replace(control=plan.control.for_model(plan.pretrained))
    with one_thread(plan.sampler.deterministic):
        best = draw_rounds(plan, rounds, watching)
    return Generation(best, time.perf_counter() - started, environment(plan.sampler, place, plan.batch_size))
