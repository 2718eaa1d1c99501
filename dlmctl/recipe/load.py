"""Load recipes: find the file by name, read it, update old settings, and check everything down to each control's
parameters."""

from __future__ import annotations

import errno
import stat
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from dlmctl.checkpoint.bundled import bundled_names, bundled_path
from dlmctl.checkpoint.resolve import SCORER, resolve
from dlmctl.control.registry import find_control, offered_controls
from dlmctl.control.user_files import one_version
from dlmctl.datasets.readers import read_sources
from dlmctl.errors import ModelError, RecipeError, UserError
from dlmctl.recipe.build import params_of_set
from dlmctl.recipe.command_line import STANDARD_INPUT, add_control, anchored
from dlmctl.recipe.explain import explain, parsed
from dlmctl.recipe.legacy import update_legacy
from dlmctl.recipe.matched import MatchedRecipe
from dlmctl.recipe.overrides import overlay, override
from dlmctl.recipe.placeholders import placeholders_in
from dlmctl.recipe.readable import PythonSettings
from dlmctl.recipe.recipe import COMBINATIONS, DEFAULT_MODEL, ControlSpec, Misplaced, Recipe
from dlmctl.recipe.settings import QUOTA_NEEDS_ALL, QUOTA_REMEDY, accepts_failures
from dlmctl.recipe.stray_placeholders import refuse_stray, with_placeholders
from dlmctl.recipe.yaml_file import Place, SettingsFile, parse, read_limited, read_yaml

# Sections that may be empty, which is the same as leaving them out.
SECTIONS = ("controls", "sampler", "guidance")
# See ``free_recipe``.
FREE_RECIPE = "candidates: 6\nrank_by: [satisfaction, fluency]\n"


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by bundled name (``pos`` or ``pos.yaml``).

    Raises:
        RecipeError: there is neither, or the path cannot be followed.
    """
    path = Path(name)
    if _is_file(path):
        return path
    bundled = bundled_path("recipes", path.name.removesuffix(".yaml"))
    if bundled is not None and path.parent == Path("."):
        return bundled
    if bundled is not None:
        raise RecipeError("there is no such file.", where=name, remedy=f"The bundled recipe is named {path.stem!r}.")
    others = (path.parent / f"{path.stem}{suffix}" for suffix in (".yaml", ".yml"))
    near = next((str(other) for other in others if _is_file(other)), None)
    remedy = f"Did you mean {near!r}?" if near else f"Bundled recipes: {', '.join(bundled_names('recipes'))}."
    raise RecipeError("there is no such recipe file.", where=name or "''", remedy=remedy)


def _is_file(path: Path) -> bool:
    """Whether a path leads to a regular file. ``Path.is_file`` is not used: what it raises depends on the Python.

    Raises:
        RecipeError: no file can have this name, or a folder on the way or a loop of links is in the way.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        is_no_name = error.errno in (errno.ENAMETOOLONG, errno.EINVAL)
        what = "is not a valid file name." if is_no_name else f"cannot be read: {error.strerror}."
        raise RecipeError(what, where=str(path)) from None
    except ValueError:  # a name with a NUL
        raise RecipeError("is not a valid file name.", where=str(path)) from None


def load_recipe(
    name: str,
    overrides: Sequence[str] = (),
    *,
    controls: Sequence[str] = (),
    targets: Any = None,
    option: str = SettingsFile.option,
) -> tuple[Recipe, SettingsFile]:
    """Read and validate a recipe, including the parameters of its controls; with ``conditions`` it is a
    ``MatchedRecipe``.

    Args:
        name: a path or the name of a bundled recipe; ``-`` for standard input.
        overrides: ``key=value`` settings that override it, keys dotted (``sampler.steps=20``), values YAML.
        controls: entries for the list of controls as YAML, appended to those of the recipe.
        targets: replaces the recipe's targets.
        option: what gives the overrides, for messages: an option of the command line, or an argument in Python.

    Returns:
        The recipe, and its file, with the lines of its settings for messages; ``run`` takes both.

    Raises:
        RecipeError: it cannot be read, is empty, or does not validate; the message names file and line.
    """
    path = None if name == STANDARD_INPUT else find_recipe(name)
    where = "standard input" if path is None else str(path)
    text = read_limited(sys.stdin, where) if path is None else read_yaml(path)
    value, place = parse(text, where)
    if value is None:
        raise RecipeError("the recipe is empty.", where=where, remedy="See `dlmctl recipe show pos` for one.")
    if path is not None and path.parent != Path("."):
        value = anchored(value, path.parent)
    place.option = option
    return _checked(value, place, Overrides(overrides, controls, targets))


def free_recipe(overrides: Sequence[str]) -> str:
    """The recipe used if none is given: it keeps the most fluent of several texts if something scores them, the
    ``scorer`` of the settings or the model's own.

    Args:
        overrides: the settings, as for ``load_recipe``.

    Raises:
        RecipeError: one of them is not ``key=value``.
    """
    settings: dict[str, Any] = {}
    for setting in overrides:
        override(settings, setting)
    try:
        named = settings.get("scorer") is not None
        is_scored = named or (resolve(settings.get("model", DEFAULT_MODEL)) / SCORER).is_dir()
    except (ModelError, TypeError):  # no such model, or no name: reported when it is loaded, or the recipe is checked
        is_scored = False
    return FREE_RECIPE if is_scored else ""


def load_matched(name: str, overrides: Sequence[str] = ()) -> tuple[MatchedRecipe, SettingsFile]:
    """``load_recipe`` for a recipe of matched sets.

    Raises:
        RecipeError: as ``load_recipe``, or it has no conditions.
    """
    recipe, file = load_recipe(name, overrides)
    if not isinstance(recipe, MatchedRecipe):
        raise file.error((), "the recipe has no `conditions`.", "See `dlmctl recipe show matched` for an example.")
    return recipe, file


def read_recipe(
    text: str, name: str, overrides: Sequence[str] = (), *, controls: Sequence[str] = ()
) -> tuple[Recipe, SettingsFile]:
    """``load_recipe`` for a YAML text, which may be empty; messages use ``name`` in place of a file."""
    value, file = parse(text, name)
    return _checked({} if value is None else value, file, Overrides(overrides, controls))


def validated(settings: dict[str, Any], *, targets: Any = None) -> tuple[Recipe, SettingsFile]:
    """``load_recipe`` for settings as Python values; messages name the setting instead of a line.

    Raises:
        RecipeError: they do not validate.
    """
    return _checked(deepcopy(settings), PythonSettings("recipe"), Overrides(targets=targets))


class Overrides(NamedTuple):
    """Changes made to a recipe before it is checked; see ``load_recipe``."""

    overrides: Sequence[str] = ()
    controls: Sequence[str] = ()
    targets: Any = None

    def apply(self, settings: dict[str, Any], file: SettingsFile) -> None:
        """Change ``settings``, and note in ``file`` what comes from the command line."""
        overlay(settings, self.overrides, file)
        for entry in self.controls:
            add_control(settings, entry, file)
        if self.targets is not None:
            settings["targets"] = self.targets


@one_version()
def _checked(value: Any, file: SettingsFile, overrides: Overrides) -> tuple[Recipe, SettingsFile]:
    if not isinstance(value, dict):
        raise file.error((), "a recipe is a mapping of settings.", "See `dlmctl recipe schema`.")
    # All entries of a section may be commented out.
    value = {name: section for name, section in value.items() if section is not None or name not in SECTIONS}
    overrides.apply(value, file)
    update_legacy(value, file)
    _read_source(value, file)
    recipe_type = MatchedRecipe if "conditions" in value else Recipe
    _refuse_misplaced_controls(value, recipe_type, file)
    if value.get("targets") is not None:
        value = with_placeholders(value, file)
    try:
        recipe = parsed(recipe_type, value)
        refuse_stray(recipe, file)
        require_passing(recipe, file)
        for specs in recipe.spec_sets():
            for spec in specs:
                _validate_params(spec, file)
            if recipe.targets is None:
                _refuse_contradictions(specs, file)
    except ValidationError as error:
        raise explain(error, recipe_type, (), file, value) from None
    except Misplaced as misplaced:
        raise file.error(misplaced.place, misplaced.what, misplaced.remedy) from None
    return recipe, file


def _refuse_misplaced_controls(settings: dict[str, Any], recipe_type: type[Recipe], file: SettingsFile) -> None:
    """Refuse controls beside the settings, or under ``controls`` without dashes, with the way to write them."""
    unknown = [name for name in settings if name not in recipe_type.model_fields]
    offered = (*COMBINATIONS, *offered_controls()) if unknown else ()
    stray = next((name for name in unknown if name in offered), None)
    if stray is not None:
        raise file.error(
            (stray,), f"`{stray}` is a control.", f"Write it under `controls:`, with a dash: `- {stray}:`."
        )
    controls = settings.get("controls")
    if isinstance(controls, dict) and controls:
        what = f"should be a list, not a mapping of {', '.join(map(repr, controls))[:60]}."
        raise _named_error(file, ("controls",), what, f"Each has a dash: `- {next(iter(controls))}:`.")
    for number, entry in enumerate(controls if isinstance(controls, list) else ()):
        if isinstance(entry, str):
            what = f"a control is written `- name: parameters`, with a space after the colon, not {entry[:60]!r}."
            raise _named_error(file, ("controls", number), what, "For example `- length: 9`.")


def _named_error(file: SettingsFile, place: Place, what: str, remedy: str) -> RecipeError:
    """The error for a fault at a place, with the name of the setting, unless the place says it already."""
    name = ".".join(map(str, place))
    return file.error(place, what if file.where(place) == name else f"{name}: {what}", remedy)


def require_passing(recipe: Recipe, file: SettingsFile) -> None:
    """Check that a quota counts only texts that pass.

    Raises:
        RecipeError: ``until`` accepts texts that do not.
    """
    if accepts_failures(recipe.until, recipe.quota):
        raise file.error(("until", "satisfied"), f"until.satisfied: {QUOTA_NEEDS_ALL}", QUOTA_REMEDY)


def _read_source(settings: dict[str, Any], file: SettingsFile) -> None:
    """Replace ``source: "@FILE"`` by the rows of the file; by default there is one sample for each."""
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
    if spec.name in COMBINATIONS or spec.control is not None:
        return
    try:
        control = find_control(spec.name)
    except UserError as error:
        raise Misplaced(spec.place, str(error)) from None
    for number, params in enumerate(spec.params):
        if any(placeholders_in(params)):
            continue  # checked for each row of the targets when it is drawn
        params_of_set(control, spec, number, file)


def _refuse_contradictions(specs: Sequence[ControlSpec], file: SettingsFile) -> None:
    """Refuse a control that is both required and, with the same parameters, forbidden by ``not``."""
    required = list(_conjuncts(specs))
    for negation in required:
        for forbidden in _forbidden_by(negation):
            for spec in required:
                if spec.name == forbidden.name and _coincide(_params(spec), _params(forbidden)):
                    line = file.where(spec.place)
                    what = f"the controls contradict each other: this `{spec.name}` is required at {line}."
                    raise Misplaced(forbidden.place, what)


def _conjuncts(specs: Sequence[ControlSpec]) -> Iterator[ControlSpec]:
    """The entries that every text must satisfy."""
    for spec in specs:
        if spec.name == "all":
            yield from _conjuncts(spec.parts)
        else:
            yield spec


def _forbidden_by(spec: ControlSpec) -> Iterator[ControlSpec]:
    """The entries that no text may satisfy."""
    if spec.name == "not":
        (part,) = spec.parts
        yield from part.parts if part.name == "any" else [part]


def _params(spec: ControlSpec) -> list[BaseModel]:
    if spec.control is not None:
        return list(spec.control.sets)
    params_type = find_control(spec.name).Params if spec.params else None
    return [params_type.model_validate(params) for params in spec.params] if params_type is not None else []


def _coincide(sets: Sequence[BaseModel], other_sets: Sequence[BaseModel]) -> bool:
    """Whether the parameter sets, assigned to samples in turn, are equal for some sample."""
    if not sets or not other_sets:
        return False
    samples = islice(range(len(sets) * len(other_sets)), 10_000)
    return any(sets[sample % len(sets)] == other_sets[sample % len(other_sets)] for sample in samples)
