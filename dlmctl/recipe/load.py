"""Recipes from files: found by name, read, brought up to date, and checked down to each control's parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from dlmctl.checkpoint.bundled import bundled_names, bundled_path
from dlmctl.checkpoint.resolve import resolve
from dlmctl.control.registry import find_control
from dlmctl.datasets.readers import read_sources
from dlmctl.errors import ModelError, RecipeError, UserError, first_line
from dlmctl.recipe.command_line import STANDARD_INPUT, add_control, anchored
from dlmctl.recipe.explain import explain
from dlmctl.recipe.legacy import renew
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.placeholders import placeholders_in
from dlmctl.recipe.recipe import COMBINATIONS, DEFAULT_MODEL, ControlSpec, Misplaced, Recipe
from dlmctl.recipe.settings import QUOTA_ALONE, QUOTA_PASSES, weakens
from dlmctl.recipe.stray_placeholders import refuse_stray, with_placeholders
from dlmctl.recipe.yaml_file import Place, SettingsFile, overlay, parse, read_some, read_yaml

# What may stand empty, as if it were left out.
SECTIONS = ("controls", "sampler", "guidance")
# See ``free_recipe``.
FREE = "candidates: 6\nrank_by: [satisfaction, fluency]\n"


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by bundled name (``pos`` or ``pos.yaml``).

    Raises:
        RecipeError: there is neither.
    """
    path = Path(name)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # a name that no file can have
        raise RecipeError("is no name of a file.", where=name) from None
    found = bundled_path("recipes", path.name.removesuffix(".yaml"))
    if found is not None and path.parent == Path("."):
        return found
    known = bundled_names("recipes")
    if found is not None:
        raise RecipeError("there is no such file.", where=name, remedy=f"The bundled recipe is named {path.stem!r}.")
    raise RecipeError(
        "there is no such recipe file.", where=name or "''", remedy=f"Bundled recipes: {', '.join(known)}."
    )


def load_recipe(
    name: str, overrides: Sequence[str] = (), *, controls: Sequence[str] = (), targets: Any = None
) -> tuple[Recipe, SettingsFile]:
    """Read and validate a recipe, controls' parameters included; one with ``conditions`` is a ``MatchedRecipe``.

    Args:
        name: a path or the name of a bundled recipe; ``-`` for standard input.
        overrides: ``key=value`` settings laid over it, keys dotted (``sampler.steps=20``), values YAML.
        controls: entries of the list of controls as YAML, put behind those of the recipe.
        targets: in place of the recipe's.

    Raises:
        RecipeError: it cannot be read, is empty, or does not validate; the message names file and line.
    """
    path = None if name == STANDARD_INPUT else find_recipe(name)
    where = "standard input" if path is None else str(path)
    text = read_some(sys.stdin, where) if path is None else read_yaml(path)
    value, place = parse(text, where)
    if value is None:
        raise RecipeError("the recipe is empty.", where=where, remedy="See `dlmctl recipe show pos` for one.")
    if path is not None and path.parent != Path("."):
        value = anchored(value, path.parent)
    return _checked(value, place, Laid(overrides, controls, targets))


def free_recipe(model: str | None) -> str:
    """What is drawn where no recipe is given: of several texts the most fluent, where a scorer tells which."""
    try:
        scored = (resolve(model or DEFAULT_MODEL) / "scorer").is_dir()
    except ModelError:  # whoever loads it says what is wrong
        scored = False
    return FREE if scored else ""


def load_matched(name: str, overrides: Sequence[str] = ()) -> tuple[MatchedRecipe, SettingsFile]:
    """``load_recipe`` for a recipe of matched sets.

    Raises:
        RecipeError: as ``load_recipe``, or it has no conditions.
    """
    recipe, file = load_recipe(name, overrides)
    if not isinstance(recipe, MatchedRecipe):
        raise file.error((), "the recipe has no `conditions`.", "See `dlmctl recipe show matched` for one that has.")
    return recipe, file


def read_recipe(
    text: str, name: str, overrides: Sequence[str] = (), *, controls: Sequence[str] = ()
) -> tuple[Recipe, SettingsFile]:
    """``load_recipe`` for a YAML text at hand, which may be empty; ``name`` stands for the file in messages."""
    value, file = parse(text, name)
    return _checked({} if value is None else value, file, Laid(overrides, controls))


def validated(settings: dict[str, Any], *, targets: Any = None) -> tuple[Recipe, SettingsFile]:
    """``load_recipe`` for settings as Python values; messages name the setting where they have no line to name.

    Raises:
        RecipeError: they do not validate.
    """
    return _checked(deepcopy(settings), InPython("recipe"), Laid(targets=targets))


class InPython(SettingsFile):
    """Settings that stand in no file: the place in messages is the setting itself."""

    def where(self, place: Place) -> str:
        return ".".join(map(str, place)) or self.name


class Laid(NamedTuple):
    """What is laid over a recipe before it is checked; see ``load_recipe``."""

    overrides: Sequence[str] = ()
    controls: Sequence[str] = ()
    targets: Any = None

    def over(self, settings: dict[str, Any], file: SettingsFile) -> None:
        """Put it there, and note in ``file`` what comes from the command line."""
        overlay(settings, self.overrides, file)
        for entry in self.controls:
            add_control(settings, entry, file)
        if self.targets is not None:
            settings["targets"] = self.targets


def _checked(value: Any, file: SettingsFile, laid: Laid) -> tuple[Recipe, SettingsFile]:
    if not isinstance(value, dict):
        raise file.error((), "a recipe is a mapping of settings.", "See `dlmctl recipe schema`.")
    # Their entries may all be commented out.
    value = {name: part for name, part in value.items() if part is not None or name not in SECTIONS}
    laid.over(value, file)
    renew(value, file)
    _read_source(value, file)
    kind = MatchedRecipe if "conditions" in value else Recipe
    if value.get("targets") is not None:
        value = with_placeholders(value, file)
    try:
        recipe = kind.model_validate(value)
        refuse_stray(recipe, file)
        require_passing(recipe, file)
        for specs in recipe.spec_sets():
            for spec in specs:
                _validate_params(spec, file)
            if recipe.targets is None:
                _refuse_contradictions(specs, file)
    except ValidationError as error:
        raise explain(error, kind, (), file, value) from None
    except Misplaced as misplaced:
        raise file.error(misplaced.place, misplaced.what, misplaced.remedy) from None
    return recipe, file


def require_passing(recipe: Recipe, file: SettingsFile) -> None:
    """Check that a quota is not met by texts that do not pass.

    Raises:
        RecipeError: ``until`` is content with such.
    """
    if weakens(recipe.until, recipe.quota):
        raise file.error(("until", "satisfied"), f"until.satisfied: {QUOTA_PASSES}", QUOTA_ALONE)


def _read_source(settings: dict[str, Any], file: SettingsFile) -> None:
    """Put the rows of a file in place of ``source: "@FILE"``, and a sample for each where no number is given."""
    source = settings.get("source")
    if not isinstance(source, str) or not source.startswith("@"):
        return
    try:
        rows = read_sources(Path(source[1:]))
    except UserError as error:
        raise file.error(("source",), f"{error.where}: {error.what}", error.remedy) from None
    settings["source"] = rows
    settings.setdefault("samples", len(rows))


def _validate_params(spec: ControlSpec, file: SettingsFile) -> None:
    for part in spec.parts:
        _validate_params(part, file)
    if spec.name in COMBINATIONS or spec.made is not None:
        return
    try:
        control = find_control(spec.name)
    except UserError as error:
        raise Misplaced(spec.place, str(error)) from None
    for number, params in enumerate(spec.params):
        if any(placeholders_in(params)):
            continue  # each row of the targets is checked when its turn comes
        try:
            control.Params.model_validate(params)
        except ValidationError as error:
            raise explain(error, control.Params, spec.place_of(number), file, params) from None
        except UserError:
            raise
        except Exception as error:  # of a plug-in's own validators
            what = f"the control {spec.name!r} fails on these parameters: {first_line(error)}."
            raise Misplaced(spec.place_of(number), what) from error


def _refuse_contradictions(specs: Sequence[ControlSpec], file: SettingsFile) -> None:
    """Refuse a control that is asked for and, with the same parameters, forbidden by ``not``."""
    wanted = list(_conjuncts(specs))
    for negation in wanted:
        for forbidden in _refused_by(negation):
            for spec in wanted:
                if spec.name == forbidden.name and _meet(_params(spec), _params(forbidden)):
                    line = file.where(spec.place)
                    what = f"the controls contradict each other: this `{spec.name}` is asked for at {line}."
                    raise Misplaced(forbidden.place, what)


def _conjuncts(specs: Sequence[ControlSpec]) -> Iterator[ControlSpec]:
    """What must hold of every text."""
    for spec in specs:
        if spec.name == "all":
            yield from _conjuncts(spec.parts)
        else:
            yield spec


def _refused_by(spec: ControlSpec) -> Iterator[ControlSpec]:
    """The controls of which none may hold."""
    if spec.name == "not":
        (part,) = spec.parts
        yield from part.parts if part.name == "any" else [part]


def _params(spec: ControlSpec) -> list[BaseModel]:
    if spec.made is not None:
        return list(spec.made.sets)
    kind = find_control(spec.name).Params if spec.params else None
    return [kind.model_validate(params) for params in spec.params] if kind is not None else []


def _meet(one: Sequence[BaseModel], other: Sequence[BaseModel]) -> bool:
    """Whether both ask the same of some sample, their sets of parameters dealt out in turn."""
    if not one or not other:
        return False
    samples = islice(range(len(one) * len(other)), 10_000)
    return any(one[sample % len(one)] == other[sample % len(other)] for sample in samples)
