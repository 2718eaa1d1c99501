"""From a recipe to checked texts: draw, check, choose, and draw again what failed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control, check_all
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.arguments import Rounds, check_given, read_rounds, read_settings, read_traced, whole
from dlmctl.generation.diagnose import examine, load_model
from dlmctl.generation.prompts import Asked, Label, read_prompt
from dlmctl.generation.ranking import satisfied, utilities
from dlmctl.generation.results import Generation, Sample
from dlmctl.generation.trace import Trace
from dlmctl.recipe.build import build_control
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.presets import Preset, settings_of
from dlmctl.recipe.recipe import DEFAULT_MODEL, Recipe
from dlmctl.recipe.settings import Criterion, Guidance, SamplerSettings, Until
from dlmctl.recipe.yaml_file import SettingsFile
from dlmctl.sampling.device import choose_device
from dlmctl.sampling.draw import Drawn, Progress, draw_texts
from dlmctl.sampling.environment import environment, one_thread
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.prompted import Prompt
from dlmctl.sampling.spread import put_on
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep
from dlmctl.text.fields import Given

# Texts and candidates of one call that keeps all of them; more go to files, shard by shard.
MOST_IN_MEMORY = 100_000


def run_recipe(
    recipe: Recipe,
    *,
    model: Pretrained | None = None,
    samples: Sequence[int] | None = None,
    origin: SettingsFile | None = None,
    progress: Progress | None = None,
    on_step: OnStep | None = None,
    trace: bool | int | Sequence[int] = False,
    watch: OnFrames | None = None,
) -> Generation:
    """Generate what a recipe asks for. See ``generate``.

    Args:
        model: the recipe's model, where it is loaded already.
        samples: the numbers of the samples to generate; all of the recipe's if not given.
        origin: where the recipe stands; errors about it name the line.
        trace, watch: as ``generate``.

    Raises:
        RecipeError: so many texts are asked for at once that they should go to files.
        UserError: as ``generate``.
    """
    fault = None if origin is None else origin.error
    require_plain(recipe, origin)
    if samples is None and recipe.samples * recipe.candidates > MOST_IN_MEMORY:
        what = f"samples: more than {MOST_IN_MEMORY:,} texts and candidates do not fit into memory."
        remedy = "Write them to a folder: --out FOLDER/."
        raise fault(("samples",), what, remedy) if fault is not None else RecipeError(what, remedy=remedy)
    pretrained = model or load_model(recipe, origin)
    given = read_prompt(pretrained, recipe.label, recipe.source, recipe.prompt, fault=fault)
    try:
        control = build_control(recipe.control_specs())
        return draw_recipe(
            recipe,
            control,
            pretrained,
            given,
            samples=samples,
            progress=progress,
            on_step=on_step,
            trace=trace,
            watch=watch,
        )
    except UserError:
        if origin is not None:
            examine(recipe, pretrained, origin)  # says the same, and on which line
        raise


def require_plain(recipe: Recipe, origin: SettingsFile | None) -> None:
    """Refuse a recipe of matched sets where one of texts is needed.

    Raises:
        RecipeError: it is one.
    """
    if isinstance(recipe, MatchedRecipe):
        what, remedy = "this is a recipe of matched sets.", "Run it with `dlmctl matched --recipe ...`."
        raise RecipeError(what, where=None if origin is None else origin.where(("conditions",)), remedy=remedy)


def draw_recipe(
    recipe: Recipe,
    control: Control[Any] | None,
    pretrained: Pretrained,
    given: Prompt | None,
    *,
    samples: Sequence[int] | None = None,
    progress: Progress | None = None,
    on_step: OnStep | None = None,
    trace: bool | int | Sequence[int] = False,
    watch: OnFrames | None = None,
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
        candidates=recipe.candidates,
        rank_by=recipe.rank_by,
        batch_size=recipe.batch_size,
        device=recipe.device,
        progress=progress,
        on_step=on_step,
        trace=trace,
        watch=watch,
    )


def generate(
    control: Control[Any] | None = None,
    *,
    model: str | Path | Pretrained = DEFAULT_MODEL,
    label: Label | Sequence[Label] | None = None,
    source: Given | Sequence[Given] | None = None,
    prompt: Asked | Sequence[Asked] | None = None,
    given: Prompt | None = None,
    samples: int | Sequence[int] = 8,
    seed: int = 0,
    preset: Preset = "balanced",
    sampler: SamplerSettings | Mapping[str, Any] | None = None,
    guidance: Guidance | Mapping[str, Any] | None = None,
    until: Until | Mapping[str, Any] | None = None,
    candidates: int = 1,
    rank_by: Criterion | Sequence[Criterion] = ("satisfaction",),
    batch_size: int = 64,
    deterministic: bool = False,
    device: str = "auto",
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
        source: of a model with a source, what to write from, text or fields and values, or a list of such.
        prompt: of a model over tokens, what to answer or go on from, or a list of such.
        given: in place of label, source and prompt, as ids already; see ``prompts.read_prompt``.
        samples: how many texts, or the numbers of some of a run's; sets of parameters are dealt out to them by number.
        seed: each sample follows from the seed and its own number, but for the rounding of its batch.
        preset: what ``sampler`` and ``guidance`` are where they are not given; a dict of some settings is laid over it.
        until: draw samples again that are not good enough; the best text of each is kept.
        candidates: texts drawn for each sample in each round, of which the best by ``rank_by`` is kept; the first
            criterion counts first, see ``ranking.utilities``.
        deterministic: each text alone on one thread of the CPU, and so to the last bit the same at any batch size.
        device: ``auto`` takes a GPU if there is one, but not where the texts are to be deterministic.
        on_step: sees every reverse step of every batch.
        trace: keep the words and energies of every step, in ``Sample.trace``: of all samples, of the first so many, or
            of those with these numbers.
        watch: is shown the words of a batch's texts, up to ``MOST_WATCHED``, at every step.

    Raises:
        UserError: a missing model or weights, a label or source that the model does not take, a control that it
            cannot satisfy, an unknown device, an argument of the wrong kind.
    """
    check_given(control, model, preset)
    rounds = read_rounds(samples, seed, until, candidates, rank_by)
    traced = read_traced(trace, rounds.numbers)
    pretrained = model if isinstance(model, Pretrained) else from_pretrained(model)
    presets = settings_of(preset, pretrained.model.family)
    chosen = read_settings(presets, sampler, guidance, deterministic=deterministic)
    given = given or read_prompt(pretrained, label, source, prompt)
    plan = Plan(pretrained, control, *chosen, whole("batch_size", batch_size), given, traced, watch)
    return _generated(plan, rounds, device, progress, on_step)


def _generated(
    plan: Plan, rounds: Rounds, device: str, progress: Progress | None, on_step: OnStep | None
) -> Generation:
    started = time.perf_counter()
    place = choose_device(device, deterministic=plan.sampler.deterministic)
    put_on(plan.pretrained.model, place)
    if plan.control is not None:
        plan.control.load_from(plan.pretrained)
    with one_thread(plan.sampler.deterministic):
        best = _rounds(plan, rounds, progress, on_step)
    return Generation(best, time.perf_counter() - started, environment(plan.sampler, place, plan.batch_size))


def _rounds(plan: Plan, asked: Rounds, progress: Progress | None, on_step: OnStep | None) -> list[Sample]:
    """The best text of each sample, after as many rounds of drawing as it takes."""
    best: dict[int, Sample] = {}
    for number in range(asked.until.max_rounds):
        open_samples = [i for i in asked.numbers if i not in best or not satisfied(best[i].checks, asked.until)]
        if not open_samples:
            break
        attempts = range(number * asked.candidates, (number + 1) * asked.candidates)
        draws = [Draw(asked.seed, sample, attempt) for sample in open_samples for attempt in attempts]
        found: dict[int, list[Sample]] = {i: [best[i]] if i in best else [] for i in open_samples}
        for sample in _checked(plan, draw_texts(plan, draws, progress=progress, on_step=on_step)):
            found[sample.index].append(sample)
        for i, texts in found.items():
            best[i] = replace(_best(texts, asked.rank_by, plan.pretrained), rounds=number + 1)
    return [best[i] for i in asked.numbers]


def _checked(plan: Plan, drawn: Iterator[Drawn]) -> Iterator[Sample]:
    """Samples with their checks, in the order of their draws (which the ranking of equals must not depend on)."""
    in_order = sorted(drawn, key=lambda result: result.draw)
    # A judge may be a network too.
    for results in [[one] for one in in_order] if plan.sampler.deterministic else [in_order]:
        samples, texts = [result.draw.sample for result in results], [result.words for result in results]
        for result, checks in zip(results, check_all(plan.control, samples, texts), strict=True):
            text = plan.pretrained.tokenizer.text(result.words)
            yield Sample(
                result.draw.sample,
                result.words,
                text,
                checks,
                result.latent,
                problem=result.problem,
                nats=result.nats,
                trace=Trace(tuple(result.frames)) if result.frames else None,
            )


def _best(texts: list[Sample], rank_by: Sequence[Criterion], pretrained: Pretrained) -> Sample:
    if len(texts) == 1:
        return texts[0]
    values = utilities(
        rank_by,
        pretrained,
        [text.words for text in texts],
        [text.checks for text in texts],
        [text.nats for text in texts],
    )
    return texts[max(range(len(texts)), key=values.__getitem__)]
