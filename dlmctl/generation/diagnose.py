"""What stands against a recipe: asked of its model before anything is drawn, and said with file and line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.matched_check import check_matched, controls_of
from dlmctl.generation.prompts import read_prompt
from dlmctl.generation.ranking import ranks_by_scorer
from dlmctl.generation.repair import require_repairable
from dlmctl.generation.scoring import load_scoring
from dlmctl.generation.targets import TargetRun, read_targets
from dlmctl.metrics.nats import load_causal
from dlmctl.recipe.build import build_control
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.recipe import ControlSpec, Misplaced, Recipe, every
from dlmctl.recipe.yaml_file import Place, SettingsFile
from dlmctl.sampling.device import choose_device
from dlmctl.sampling.device_map import put_on
from dlmctl.sampling.draw import check_settings
from dlmctl.sampling.latent_steering import method_for
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.possible_draws import impossible
from dlmctl.sampling.prompted import Prompt

# Samples that are laid out to see whether they can be drawn: these at least, and one for each set of parameters.
FEWEST_TRIED = 4
# Rows of targets that are looked at before a run; the others are when their turn comes. And sets of parameters, where
# it is not known which is at fault.
MOST_ROWS = 32


def load_model(recipe: Recipe, file: SettingsFile | None) -> Pretrained:
    """The recipe's model.

    Raises:
        UserError: it cannot be had; where ``file`` is given, the message names the line that asks for it.
    """
    with _faults_at(("model",), file):
        return from_pretrained(recipe.model)


def find_device(recipe: Recipe, file: SettingsFile | None) -> torch.device:
    """The device that a recipe asks for.

    Raises:
        UserError: it cannot be used; where ``file`` is given, the message names the line that asks for it.
    """
    with _faults_at(("device",), file):
        return choose_device(recipe.device, deterministic=recipe.sampler.deterministic)


def validate_recipe(recipe: Recipe, file: SettingsFile) -> None:
    """Find what would keep a recipe from running, without drawing anything; see ``examine``.

    Raises:
        RecipeError: the first thing that stands against it, with its line.
    """
    examine(recipe, load_model(recipe, file), file)


def examine(recipe: Recipe, pretrained: Pretrained, file: SettingsFile) -> None:
    """Ask a model whether it can do what a recipe asks for.

    Raises:
        RecipeError: an unknown device, label, field or word, missing weights or scorer, a sampler, method or repair
            that the model does not have, controls that contradict each other or that its texts are too short for, or
            matched sets no item of which can be whole.
    """
    put_on(pretrained.model, find_device(recipe, file))
    prompt = None
    if recipe.targets is None:
        prompt = read_prompt(pretrained, recipe.label, recipe.source, recipe.prompt, fault=file.error)
    try:
        check_settings(pretrained, recipe.sampler, recipe.guidance, controlled=all(recipe.spec_sets()))
    except RecipeError as error:
        raise at_its_setting(error, file) from None
    _examine_scorers(recipe, pretrained, file)
    table = read_targets(recipe, file)
    if table is not None:
        fault = TargetRun(recipe, table, pretrained).fault(range(min(MOST_ROWS, len(table))))
        if fault is not None:
            raise fault
        return
    _examine_controls(recipe, pretrained, prompt, file)


def _examine_controls(recipe: Recipe, pretrained: Pretrained, prompt: Prompt | None, file: SettingsFile) -> None:
    """Try the controls of each kind of text, and of matched sets those of all kinds together."""
    for specs in recipe.spec_sets():
        try:
            control = build_control(specs)
        except Misplaced as fault:
            raise file.error(fault.place, fault.what, fault.remedy) from None
        if control is not None:
            _try(_Trial(recipe, pretrained, prompt), control, specs, file)
        else:
            _try_free(Plan(pretrained, None, recipe.sampler, recipe.guidance, recipe.batch_size, prompt), recipe, file)
    if isinstance(recipe, MatchedRecipe):
        _try_matched(recipe, pretrained, prompt, file)


def _try_matched(recipe: MatchedRecipe, pretrained: Pretrained, prompt: Prompt | None, file: SettingsFile) -> None:
    controls = controls_of(recipe, pretrained)
    settings = recipe.sampler, recipe.guidance, recipe.batch_size, prompt
    try:
        check_matched(recipe, {name: Plan(pretrained, control, *settings) for name, control in controls.items()})
    except Misplaced as fault:
        raise file.error(fault.place, fault.what, fault.remedy) from None


def _examine_scorers(recipe: Recipe, pretrained: Pretrained, file: SettingsFile) -> None:
    """Whether the model has what judges its texts, and writes such as can be repaired."""
    if recipe.sampler.particles > 1 and recipe.sampler.reward == "lm_score":
        with _faults_at(("sampler", "reward"), file):
            load_scoring(pretrained, reads=False)
    if ranks_by_scorer(recipe.rank_by, recipe.candidates, recipe.until, recipe.quota):
        with _faults_at(("rank_by",), file):
            load_scoring(pretrained, reads="acceptability" in recipe.rank_by)
        if recipe.second_scorer is not None:
            with _faults_at(("second_scorer",), file):
                load_causal(recipe.second_scorer)
    if recipe.until is not None and recipe.until.repair:
        with _faults_at(("until", "repair"), file):
            require_repairable(pretrained)
    if recipe.until is not None and recipe.until.bounds_fluency:
        with _faults_at(("until",), file):
            load_scoring(pretrained, reads=recipe.until.acceptability is not None)


def _try(trial: _Trial, control: Control[Any], specs: list[ControlSpec], file: SettingsFile) -> None:
    recipe, pretrained = trial.recipe, trial.pretrained
    if pretrained.model.family == "gaussian":
        with _faults_at(("guidance", "method"), file):
            method_for(pretrained.latent, recipe.guidance)
    fault = trial.of(control, specs)
    if fault is not None:
        at_setting = at_its_setting(fault.error, file)
        if at_setting is not fault.error:
            raise at_setting
        raise _placed(fault.error, trial.culprit(fault.error, specs), file)


def _try_free(plan: Plan, recipe: Recipe, file: SettingsFile) -> None:
    """Whether the first texts without controls fit the model and the settings."""
    tried = range(min(FEWEST_TRIED, recipe.samples))
    for error in impossible(plan, [Draw(recipe.seed, sample, 0) for sample in tried]).values():
        at_setting = at_its_setting(error, file)
        raise at_setting if at_setting is not error else _placed(error, (), file)


class _Fault(NamedTuple):
    """What stands against some controls, and the first sample that cannot be drawn; None where it is all of them."""

    error: UserError
    sample: int | None


class _Trial:
    """Whether a recipe's first samples can be drawn under some of its controls."""

    def __init__(self, recipe: Recipe, pretrained: Pretrained, prompt: Prompt | None) -> None:
        self.recipe, self.pretrained, self.prompt = recipe, pretrained, prompt

    def of(self, control: Control[Any], specs: Sequence[ControlSpec]) -> _Fault | None:
        """What stands against the first of the samples that cannot be drawn."""
        recipe = self.recipe
        tried = min(max([FEWEST_TRIED, *map(_sets, specs)]), recipe.samples)
        try:
            own = control.for_model(self.pretrained)
            plan = Plan(self.pretrained, own, recipe.sampler, recipe.guidance, recipe.batch_size, self.prompt)
            found = impossible(plan, [Draw(recipe.seed, sample, 0) for sample in range(tried)])
        except UserError as error:
            return _Fault(error, None)
        return next((_Fault(error, sample) for sample, error in found.items()), None)

    def alone(self, spec: ControlSpec) -> _Fault | None:
        control = build_control([spec])
        return self.of(control, [spec]) if control is not None else None

    def culprit(self, error: UserError, specs: Sequence[ControlSpec]) -> Place:
        """The place of the innermost control that fails for the same reason when alone, else of all of them."""
        for spec in specs:
            found = self.alone(spec)
            if found is None or found.error.what != error.what:
                continue
            if spec.parts:
                inner = self.culprit(error, spec.parts)
                return spec.place if inner == ("controls",) else inner
            for number in _suspects(found, len(spec.params)):
                if self.alone(spec.model_copy(update={"params": [spec.params[number]]})) is not None:
                    return spec.place_of(number)
            return spec.place
        # None alone: it is the company. The one that complains is where to look.
        named = [spec.place for spec in every(list(specs)) if spec.name in (error.where or "").split(" and ")]
        return named[-1] if named else ("controls",)


def _suspects(fault: _Fault, sets: int) -> Sequence[int]:
    """Which of the sets of parameters of a control may be at fault, by number."""
    if fault.sample is None or not sets:
        return range(min(MOST_ROWS, sets))
    return [fault.sample % sets]


def _sets(spec: ControlSpec) -> int:
    return max([len(spec.params), *map(_sets, spec.parts)])


@contextmanager
def _faults_at(place: Place, file: SettingsFile | None) -> Iterator[None]:
    """Give what is raised inside the line of ``place``."""
    try:
        yield
    except UserError as error:
        if file is None:
            raise
        raise _placed(error, place, file) from None


def at_its_setting(error: UserError, file: SettingsFile) -> UserError:
    """An error about a setting, ``sampler.name`` or ``sampler``, with the line of the setting; others as they are."""
    place = tuple((error.where or "").split("."))
    return _placed(error, place, file) if place[0] in ("sampler", "guidance") else error


def _placed(error: UserError, place: Place, file: SettingsFile) -> RecipeError:
    what = f"{error.where}: {error.what}" if error.where else error.what
    return file.error(place, what, error.remedy)
