"""The entry points for Python code: a model that is loaded once and used many times, and recipes run by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Unpack

from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.base import Control
from dlmctl.control.user_files import one_version
from dlmctl.datasets.in_memory import rows_in
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.tokens import TokenLM
from dlmctl.errors import UserError, readable
from dlmctl.generation.arguments import (
    check_model,
    check_traced,
    require_room,
    sample_numbers,
    warn_of_unused_sets,
    whole,
)
from dlmctl.generation.generate import generate
from dlmctl.generation.notebook_bar import progress_or_bar
from dlmctl.generation.options import Options, check_names, spelled_out
from dlmctl.generation.results import Generation, Sample
from dlmctl.generation.run import run_recipe
from dlmctl.generation.stream import stream_samples
from dlmctl.recipe.load import load_recipe, validated
from dlmctl.recipe.recipe import DEFAULT_MODEL, Recipe
from dlmctl.recipe.yaml_file import OVERRIDES, SettingsFile
from dlmctl.sampling.device import choose_device
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep
from dlmctl.text.plain_values import plain_value

_spelled_out = spelled_out(generate)
AnyRecipe = str | Path | Recipe | Mapping[str, Any] | tuple[Recipe, SettingsFile]
"""A recipe by name or file, as a dict, as an object, or as ``load_recipe`` returns it."""
Overridden = str | Sequence[str] | Mapping[str, Any]
"""Settings of a recipe's file to override: a dict of them, or settings as for ``--set``."""


class Model(Pretrained):
    """A loaded model, as returned by ``load``.

    Attributes:
        model: the network with its embeddings, in evaluation mode; tokenizer: its vocabulary.
        folder: the folder that it was loaded from.
    """

    @_spelled_out
    def generate(
        self,
        control: Control[Any] | None = None,
        *,
        samples: int | Sequence[int] = 8,
        progress: Progress | bool | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Generate texts, with or without a control.

        Args:
            control: what the texts must satisfy (``Pos(tags=[...])``); controls combine with ``&``, ``|``, ``~`` and
                weights, ``0.5 * control``.
            samples: how many texts, or the sample numbers to generate.
            progress: called with the steps done and in all; by default a notebook shows a bar, False shows none.
            options: those of ``dlmctl.generation.generate.generate``, in short: ``seed``; ``preset`` fast, balanced,
                quality or paper, with single settings of ``sampler`` and ``guidance`` as dicts to override it;
                ``until``, ``candidates`` and ``rank_by`` choose among draws; ``quota`` draws until all texts pass and
                differ, ``unique`` returns no text twice; ``label``, ``source`` and ``prompt`` condition models that
                accept them; ``batch_size``, ``device``, ``deterministic``; ``trace`` records every step
                (``result.trace``), ``on_step`` and ``watch`` are called with it.

        Raises:
            UserError: the model cannot do what is requested, or an argument is wrong; the message says what is right.
        """
        check_names(options)
        numbers = sample_numbers(samples)
        require_room(len(numbers), options.get("candidates", 1))
        check_traced(options.get("trace", False), numbers)
        warn_of_unused_sets(control, samples)
        with progress_or_bar(progress) as step_progress:
            generation = generate(control, model=self, samples=samples, progress=step_progress, **options)
        return replace(generation, about={"seed": int(options.get("seed", 0)), "model": model_name(self.folder)})

    @_spelled_out
    def stream(
        self, control: Control[Any] | None = None, *, samples: int | None = None, **options: Unpack[Options]
    ) -> Iterator[Sample]:
        """Yield the texts of ``generate`` one by one, as their batches of ``batch_size`` finish.

        Args:
            samples: how many; without a number the stream is endless.
            options: as for ``generate``.

        Raises:
            UserError: as ``generate``; a wrong argument is reported by the call itself, not with the first text.
        """
        check_names(options)
        return stream_samples(self, control, samples, options)

    def save(self, folder: str | Path) -> None:
        """Write the model and its vocabulary to a folder that ``load`` can read.

        Raises:
            UserError: the folder cannot be written, or the model is a third-party checkpoint.
        """
        if not isinstance(self.model, DiffusionLM | MaskedLM):
            raise UserError(
                "is a third-party checkpoint and is not rewritten: copy its folder.", where=str(self.folder)
            )
        save_pretrained(self.model, self.tokenizer, folder, source_tokenizer=self.source_tokenizer)

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        unit = "tokens" if isinstance(self.model, TokenLM) else "words"
        description = f"{self.model.family}, {size:.2f} M parameters, {len(self.tokenizer)} {unit}"
        return f"Model({model_name(self.folder)!r}: {description})"


def load(model: str | Path = DEFAULT_MODEL, *, device: str = "cpu") -> Model:
    """Load a model by bundled name, folder or hub name.

    Args:
        device: the device to load its weights to, named as in a recipe; generation moves them to its own device.

    Raises:
        ModelError: there is no such model, or one of its files is missing, damaged or too new.
        UserError: ``model`` is not a name, or there is no such device.
    """
    if not isinstance(model, str | Path):
        raise UserError(f"{type(model).__name__!r} is not the name of a model.", where="model", remedy='E.g. "e2e".')
    pretrained = from_pretrained(model, choose_device(device))
    return Model(**{field.name: getattr(pretrained, field.name) for field in fields(pretrained)})


@one_version()
def run(
    recipe: AnyRecipe,
    *,
    model: str | Path | Pretrained | None = None,
    targets: str | Path | Iterable[Mapping[str, Any]] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    overrides: Overridden = (),
    strict: bool = False,
    progress: Progress | bool | None = None,
    on_step: OnStep | None = None,
    trace: bool | int | Sequence[int] = False,
    watch: OnFrames | None = None,
) -> Generation:
    """Generate the texts of a recipe.

    Args:
        recipe: the name of a bundled recipe, a file, a dict of settings, a ``Recipe``, or what ``load_recipe`` returns;
            the ``controls`` of a dict or a ``Recipe`` may hold control objects.
        model: in place of the recipe's: a bundled name, a folder, a hub name, or a model already loaded.
        targets: a table whose rows fill the recipe's placeholders, ``samples`` texts each: a file, a data frame of
            pandas or Polars, a table of PyArrow, or rows as mappings of columns to cells.
        samples, seed: in place of the recipe's.
        progress: called with the steps done and in all; by default a notebook shows a bar, False shows none.
        overrides: settings that override those of a file, e.g. ``{"sampler.steps": 20}``, or as with ``--set``,
            ``["sampler.steps=20"]``.
        strict: raise an error for the first row that cannot be met; otherwise ``unmet`` of its samples says why.
        on_step, trace, watch: as for ``generate``.

    Raises:
        UserError: the recipe cannot be read, does not validate, or requests what its model cannot do.
    """
    target_rows = None if targets is None else _target_rows(targets)
    model_name, loaded = name_and_model(model)
    resolved, origin = recipe_from(recipe, overrides, model=model_name, targets=target_rows, samples=samples, seed=seed)
    with progress_or_bar(progress) as step_progress:
        return run_recipe(
            resolved,
            model=loaded,
            origin=origin,
            strict=strict,
            progress=step_progress,
            on_step=on_step,
            trace=trace,
            watch=watch,
        )


def name_and_model(model: str | Path | Pretrained | None) -> tuple[str | None, Pretrained | None]:
    """The name of a model for a recipe, and the model if it is loaded already.

    Raises:
        UserError: it is neither a model nor a name.
    """
    if model is None:
        return None, None
    check_model(model)
    return (model_name(model.folder), model) if isinstance(model, Pretrained) else (str(model), None)


def _target_rows(targets: Any) -> Any:
    """Targets in the form that a recipe holds."""
    if isinstance(targets, str | Path):
        return str(targets)
    if (rows := rows_in(targets)) is not None:
        return rows
    if isinstance(targets, Iterable) and not isinstance(targets, Mapping):
        return list(targets)
    remedy = "Give a file, a data frame, or a list of rows as dicts."
    raise UserError(f"{type(targets).__name__!r} is not a table.", where="targets", remedy=remedy)


def recipe_from(
    recipe: Any,
    overrides: Overridden,
    *,
    model: str | None = None,
    targets: Any = None,
    samples: int | None = None,
    seed: int | None = None,
) -> tuple[Recipe, SettingsFile | None]:
    """Read a recipe in any form that ``run`` accepts; also returns its file, if it has one.

    Args:
        model: in place of its own; its family determines what a preset means.
        targets, samples, seed: in place of the recipe's.

    Raises:
        UserError: it cannot be read or does not validate.
    """
    resolved, origin = _read(recipe, overrides, model, targets)
    changes = {
        name: whole(name, value, least=least)
        for name, value, least in (("samples", samples, 1), ("seed", seed, 0))
        if value is not None
    }
    return resolved.model_copy(update=changes), origin


def _read(recipe: Any, overrides: Overridden, model: str | None, targets: Any) -> tuple[Recipe, SettingsFile | None]:
    settings = _as_settings(overrides)
    if isinstance(recipe, str | Path):
        settings += [] if model is None else _as_settings({"model": model})
        return load_recipe(str(recipe), settings, targets=targets, option=OVERRIDES)
    if isinstance(recipe, tuple) and len(recipe) == 2 and isinstance(recipe[0], Recipe) and not settings:
        return _read(recipe[0], (), model, targets)[0], recipe[1]  # as `load_recipe` returns it
    if settings:
        raise UserError("apply only to recipes given by name.", where="overrides", remedy="Change the recipe itself.")
    if isinstance(recipe, Recipe):
        recipe = recipe if model in (None, recipe.model) else recipe.changed(model=model)
        return recipe if targets is None else recipe.model_copy(update={"targets": targets}), None
    if isinstance(recipe, Mapping):
        return validated({**recipe, **({} if model is None else {"model": model})}, targets=targets)
    message = f"{type(recipe).__name__!r} is not a recipe."
    raise UserError(message, where="recipe", remedy="Give a name, a file, a dict of its settings or a Recipe.")


def _as_settings(overrides: Overridden, inside: str = "") -> list[str]:
    """Overrides in the form of ``--set``; a dict inside a dict sets its entries."""
    if isinstance(overrides, str):
        return [overrides]
    if isinstance(overrides, Sequence) and all(isinstance(setting, str) for setting in overrides):
        return list(overrides)
    if not isinstance(overrides, Mapping):
        remedy = 'E.g. {"sampler.steps": 20}.'
        raise UserError(
            f"must be a dict of settings, not {readable(repr(overrides), 60)}.", where=OVERRIDES, remedy=remedy
        )
    settings = []
    for name, value in plain_value(dict(overrides)).items():
        is_section = isinstance(value, Mapping) and value
        settings += (
            _as_settings(value, f"{inside}{name}.") if is_section else [f"{inside}{name}={_as_yaml(name, value)}"]
        )
    return settings


def _as_yaml(name: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        what = f"{name}: a recipe file cannot hold {readable(repr(value), 60)}."
        remedy = "Objects go into a `dlmctl.Recipe(...)` or a dict."
        raise UserError(what, where=OVERRIDES, remedy=remedy) from None
