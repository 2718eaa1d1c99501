"""Validation of recipes against their models before anything is drawn; errors name the file and line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from dlmctl.annotators.causal import load_causal
from dlmctl.annotators.reader import text_scorer
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.control_for import ControlFor
from dlmctl.generation.matched_check import check_matched, matching_of
from dlmctl.generation.prompts import read_prompt
from dlmctl.generation.repair import require_repairable
from dlmctl.generation.sample_groups import is_ranked_by_scorer
from dlmctl.generation.scoring import load_scoring
from dlmctl.generation.targets import TargetRun, read_targets
from dlmctl.recipe.build import build_control
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import ControlSpec, Misplaced, Recipe, nested_specs
from dlmctl.recipe.yaml_file import Place, SettingsFile
from dlmctl.sampling.device import choose_device
from dlmctl.sampling.device_map import move_to_device
from dlmctl.sampling.draw import check_settings
from dlmctl.sampling.latent_steering import method_for
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.possible_draws import impossible_draws
from dlmctl.sampling.prompted import Prompt

# Fewest samples that are laid out to see whether they can be drawn; more if there are more parameter sets.
MIN_TRIED = 4
# Most rows of targets that are checked before a run; the others are checked when they are drawn. Also the most
# parameter sets that are tried if it is not known which one is at fault.
MAX_TRIED = 32


def load_model(recipe: Recipe, file: SettingsFile | None, model: Pretrained | None = None) -> Pretrained:
    """Load the recipe's model, and see to its scorer.

    Args:
        model: the model, if it is loaded already.

    Raises:
        UserError: it cannot be loaded; with ``file`` the message names the line that requests it.
    """
    with _errors_at(("model",), file):
        pretrained = model or from_pretrained(recipe.model)
    if recipe.scorer is None:
        return pretrained
    with _errors_at(("scorer",), file):
        scored = pretrained.scored_by(recipe.scorer)
        text_scorer(scored)
    return scored


def find_device(recipe: Recipe, file: SettingsFile | None) -> torch.device:
    """The device of a recipe.

    Raises:
        UserError: it cannot be used; with ``file`` the message names the line that requests it.
    """
    with _errors_at(("device",), file):
        return choose_device(recipe.device, deterministic=recipe.sampler.deterministic)


def validate_recipe(recipe: Recipe, file: SettingsFile) -> None:
    """Check that a recipe can run, without drawing anything; see ``examine``.

    Raises:
        RecipeError: the first fault, with its line.
    """
    examine(recipe, load_model(recipe, file), file)


@own_modes()
def examine(recipe: Recipe, pretrained: Pretrained, file: SettingsFile) -> ControlFor | None:
    """Check that a model can run a recipe.

    Returns:
        For matched sets, the tolerances of the exchanged words; looking the words up takes seconds, so the run goes on
        with them.

    Raises:
        RecipeError: an unknown device, label, field or word, missing weights or scorer, a sampler, method or repair
            that the model does not support, controls that contradict each other or that its texts are too short for,
            or matched sets in which no item can be complete.
    """
    move_to_device(pretrained.model, find_device(recipe, file))
    prompt = None
    if recipe.targets is None:
        prompt = read_prompt(pretrained, recipe.label, recipe.source, recipe.prompt, make_error=file.error)
    try:
        check_settings(pretrained, recipe.sampler, recipe.guidance, controlled=all(recipe.spec_sets()))
    except RecipeError as error:
        raise with_setting_line(error, file) from None
    table = read_targets(recipe, file)
    if table is not None:
        fault = TargetRun(recipe, table, pretrained).fault(range(min(MAX_TRIED, len(table))))
        if fault is not None:
            raise fault
        examine_scorers(recipe, pretrained, file)
        return None
    _examine_controls(recipe, pretrained, prompt, file)
    examine_scorers(recipe, pretrained, file)
    return _try_matched(recipe, pretrained, prompt, file) if isinstance(recipe, MatchedRecipe) else None


def _examine_controls(recipe: Recipe, pretrained: Pretrained, prompt: Prompt | None, file: SettingsFile) -> None:
    """Try the controls of each set of texts."""
    for specs in recipe.spec_sets():
        try:
            control = build_control(specs)
        except Misplaced as fault:
            raise file.error(fault.place, fault.what, fault.remedy) from None
        if control is not None:
            _try_controls(_DryRun(recipe, pretrained, prompt), control, specs, file)
        else:
            _try_free(Plan(pretrained, None, recipe.sampler, recipe.guidance, recipe.batch_size, prompt), recipe, file)


def _try_matched(
    recipe: MatchedRecipe, pretrained: Pretrained, prompt: Prompt | None, file: SettingsFile
) -> ControlFor:
    """Try the controls of all conditions together."""
    matching = matching_of(recipe, pretrained)
    settings = recipe.sampler, recipe.guidance, recipe.batch_size, prompt
    plans = {name: Plan(pretrained, control, *settings) for name, control in matching.controls.items()}
    try:
        check_matched(recipe, plans, matching)
    except Misplaced as fault:
        raise file.error(fault.place, fault.what, fault.remedy) from None
    return matching


def examine_scorers(recipe: Recipe, pretrained: Pretrained, file: SettingsFile) -> None:
    """Check that the model has the scorers that the recipe needs, and that its texts can be repaired if requested.

    Raises:
        RecipeError: it has not, with the line of the setting that needs it.
    """
    if recipe.sampler.particles > 1 and recipe.sampler.reward == "lm_score":
        with _errors_at(("sampler", "reward"), file):
            load_scoring(pretrained, reads=False)
    if is_ranked_by_scorer(recipe):
        with _errors_at(("rank_by",), file):
            load_scoring(pretrained, reads="acceptability" in recipe.rank_by)
        if recipe.second_scorer is not None:
            with _errors_at(("second_scorer",), file):
                load_causal(recipe.second_scorer)
    if recipe.until is not None and recipe.until.repair:
        with _errors_at(("until", "repair"), file):
            require_repairable(pretrained)
    if recipe.until is not None and recipe.until.bounds_fluency:
        with _errors_at(("until",), file):
            load_scoring(pretrained, reads=recipe.until.acceptability is not None)


def _try_controls(dry_run: _DryRun, control: Control[Any], specs: list[ControlSpec], file: SettingsFile) -> None:
    recipe, pretrained = dry_run.recipe, dry_run.pretrained
    if pretrained.model.family == "gaussian":
        with _errors_at(("guidance", "method"), file):
            method_for(pretrained.latent, recipe.guidance)
    fault = dry_run.first_fault(control, specs)
    if fault is not None:
        at_setting = with_setting_line(fault.error, file)
        if at_setting is not fault.error:
            raise at_setting
        raise _with_line(fault.error, dry_run.faulty_place(fault.error, specs), file)


def _try_free(plan: Plan, recipe: Recipe, file: SettingsFile) -> None:
    """Check that the first texts without controls fit the model and the settings."""
    samples = range(min(MIN_TRIED, recipe.samples))
    for error in impossible_draws(plan, [Draw(recipe.seed, sample, 0) for sample in samples]).values():
        at_setting = with_setting_line(error, file)
        raise at_setting if at_setting is not error else _with_line(error, (), file)


class _Fault(NamedTuple):
    """Why controls cannot be met, and the first sample that cannot be drawn; None if no sample can be."""

    error: UserError
    sample: int | None


class _DryRun:
    """Checks whether a recipe's first samples can be drawn under some of its controls, without drawing them."""

    def __init__(self, recipe: Recipe, pretrained: Pretrained, prompt: Prompt | None) -> None:
        self.recipe, self.pretrained, self.prompt = recipe, pretrained, prompt

    def first_fault(self, control: Control[Any], specs: Sequence[ControlSpec]) -> _Fault | None:
        """The fault of the first sample that cannot be drawn; None if all can be."""
        recipe = self.recipe
        count = min(max([MIN_TRIED, *map(_set_count, specs)]), recipe.samples)
        try:
            model_control = control.for_model(self.pretrained)
            plan = Plan(self.pretrained, model_control, recipe.sampler, recipe.guidance, recipe.batch_size, self.prompt)
            errors = impossible_draws(plan, [Draw(recipe.seed, sample, 0) for sample in range(count)])
        except UserError as error:
            return _Fault(error, None)
        return next((_Fault(error, sample) for sample, error in errors.items()), None)

    def fault_alone(self, spec: ControlSpec) -> _Fault | None:
        control = build_control([spec])
        return self.first_fault(control, [spec]) if control is not None else None

    def faulty_place(self, error: UserError, specs: Sequence[ControlSpec]) -> Place:
        """The place of the innermost control that fails alone for the same reason, or of all controls if none does."""
        for spec in specs:
            fault = self.fault_alone(spec)
            if fault is None or fault.error.what != error.what:
                continue
            if spec.parts:
                inner = self.faulty_place(error, spec.parts)
                return spec.place if inner == ("controls",) else inner
            for number in _suspects(fault, len(spec.params)):
                if self.fault_alone(spec.model_copy(update={"params": [spec.params[number]]})) is not None:
                    return spec.place_of(number)
            return spec.place
        # No control fails alone, so their combination is at fault: point at the control that raised the error.
        places = [spec.place for spec in nested_specs(list(specs)) if spec.name in (error.where or "").split(" and ")]
        return places[-1] if places else ("controls",)


def _suspects(fault: _Fault, set_count: int) -> Sequence[int]:
    """The numbers of a control's parameter sets that may be at fault."""
    if fault.sample is None or not set_count:
        return range(min(MAX_TRIED, set_count))
    return [fault.sample % set_count]


def _set_count(spec: ControlSpec) -> int:
    return max([len(spec.params), *map(_set_count, spec.parts)])


@contextmanager
def _errors_at(place: Place, file: SettingsFile | None) -> Iterator[None]:
    """Add the line of ``place`` to errors raised inside."""
    try:
        yield
    except UserError as error:
        if file is None:
            raise
        raise _with_line(error, place, file) from None


def with_setting_line(error: UserError, file: SettingsFile) -> UserError:
    """Add the line of the setting to an error about ``sampler`` or ``guidance`` settings; return others unchanged."""
    place = tuple((error.where or "").split("."))
    return _with_line(error, place, file) if place[0] in ("sampler", "guidance") else error


def _with_line(error: UserError, place: Place, file: SettingsFile) -> RecipeError:
    message = f"{error.where}: {error.what}" if error.where else error.what
    return file.error(place, message, error.remedy)
