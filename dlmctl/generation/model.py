"""A model that is loaded once and asked many times, and recipes run by name: what Python code starts from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Unpack

from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.control.base import Control
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import UserError
from dlmctl.generation.arguments import check_traced, sample_numbers, whole
from dlmctl.generation.generate import generate
from dlmctl.generation.notebook_bar import shown
from dlmctl.generation.options import Options
from dlmctl.generation.results import Generation, Sample
from dlmctl.generation.run import run_recipe
from dlmctl.generation.stream import stream_of
from dlmctl.recipe.load import load_recipe, validated
from dlmctl.recipe.recipe import DEFAULT_MODEL, Recipe
from dlmctl.recipe.yaml_file import SettingsFile
from dlmctl.sampling.device import choose_device
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.trace import OnFrames
from dlmctl.sampling.walk import OnStep


class Model(Pretrained):
    """A loaded model: what ``load`` returns.

    Attributes:
        model: the network with its embeddings, in evaluation mode; tokenizer: its words.
        folder: where it was loaded from.
    """

    def generate(
        self,
        control: Control[Any] | None = None,
        *,
        samples: int | Sequence[int] = 8,
        progress: Progress | bool | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Texts of this model, under a control or freely.

        Args:
            control: what the texts must satisfy (``Pos(tags=[...])``); controls combine with ``&``, ``|``, ``~`` and
                weights, ``0.5 * control``.
            samples: how many texts, or the numbers of some of a run's.
            progress: is told of steps; in a notebook it is a bar unless False.
            options: those of ``dlmctl.generation.generate.generate``, in short: ``seed``; ``preset`` fast, balanced,
                quality or paper, with single settings of ``sampler`` and ``guidance`` as dicts laid over it;
                ``until``, ``candidates`` and ``rank_by`` which draws count; ``quota`` draws until all pass and differ,
                ``unique`` gives no text twice; ``label``, ``source`` and ``prompt`` what texts are written from, where
                a model takes them; ``batch_size``, ``device``, ``deterministic``; ``trace`` keeps how the texts come
                about (``result.trace``), ``on_step`` and ``watch`` see it.

        Raises:
            UserError: the model cannot do what is asked, or an argument is wrong; the message says what is right.
        """
        check_traced(options.get("trace", False), sample_numbers(samples))
        with shown(progress) as told:
            found = generate(control, model=self, samples=samples, progress=told, **options)
        return replace(found, about={"seed": int(options.get("seed", 0)), "model": str(self.folder)})

    def stream(
        self, control: Control[Any] | None = None, *, samples: int | None = None, **options: Unpack[Options]
    ) -> Iterator[Sample]:
        """The texts of ``generate``, one after another as their batches of ``batch_size`` finish.

        Args:
            samples: how many; without end if not given, until whoever asks stops.
            options: as of ``generate``.

        Raises:
            UserError: as ``generate``; of a wrong argument at once, not when the first text is asked for.
        """
        return stream_of(self, control, samples, options)

    def save(self, folder: str | Path) -> None:
        """Write the model and its words to a folder, from which ``load`` reads it again.

        Raises:
            UserError: the folder cannot be written, or the model is a checkpoint of others.
        """
        if not isinstance(self.model, DiffusionLM | MaskedLM):
            raise UserError("is a checkpoint of others, which stays as it is: copy its folder.", where=str(self.folder))
        save_pretrained(self.model, self.tokenizer, folder, source_tokenizer=self.source_tokenizer)

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        entries = "tokens" if self.model.family == "tokens" else "words"
        held = f"{self.model.family}, {size:.2f} M parameters, {len(self.tokenizer)} {entries}"
        return f"Model({str(self.folder)!r}: {held})"


def load(model: str | Path = DEFAULT_MODEL, *, device: str = "cpu") -> Model:
    """A model by bundled name, folder or hub name.

    Args:
        device: where its weights go first, named as in a recipe; generation moves them to its own.

    Raises:
        ModelError: there is no such model, or a file of it is missing, damaged or too new.
        UserError: ``model`` is not a name, or there is no such device.
    """
    if not isinstance(model, str | Path):
        raise UserError(f"{type(model).__name__!r} is not the name of a model.", where="model", remedy='E.g. "e2e".')
    found = from_pretrained(model, choose_device(device))
    return Model(**{field.name: getattr(found, field.name) for field in fields(found)})


def run(
    recipe: str | Path | Recipe | Mapping[str, Any],
    *,
    model: Pretrained | None = None,
    targets: str | Path | Iterable[Mapping[str, Any]] | None = None,
    samples: int | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    strict: bool = False,
    progress: Progress | bool | None = None,
    on_step: OnStep | None = None,
    trace: bool | int | Sequence[int] = False,
    watch: OnFrames | None = None,
) -> Generation:
    """The texts that a recipe asks for.

    Args:
        recipe: the name of a bundled one, a file, the settings of one as a dict, or a ``Recipe``; the ``controls`` of
            the last two may hold control objects.
        model: a loaded model, in place of the recipe's.
        targets: a table whose rows fill the recipe's placeholders, ``samples`` texts each: a file, a data frame, or
            rows as mappings of columns to cells.
        samples, seed: in place of the recipe's.
        progress: receives steps done and in all; if not given, a notebook shows a bar. False for none.
        overrides: settings laid over those of a file, e.g. ``["sampler.steps=20"]``, as with ``--set``.
        strict: the first row that cannot be met is an error; else its samples say in ``unmet`` what is wrong.
        trace, watch: as ``generate``.

    Raises:
        UserError: the recipe cannot be read, does not validate, or asks for what its model cannot do.
    """
    rows = None if targets is None else _rows(targets)
    named = None if model is None else str(model.folder)
    found, origin = recipe_from(recipe, overrides, model=named, targets=rows, samples=samples, seed=seed)
    with shown(progress) as told:
        return run_recipe(
            found,
            model=model,
            origin=origin,
            strict=strict,
            progress=told,
            on_step=on_step,
            trace=trace,
            watch=watch,
        )


def _rows(targets: Any) -> Any:
    """Targets as a recipe has them."""
    if isinstance(targets, str | Path):
        return str(targets)
    if hasattr(targets, "to_dict") and hasattr(targets, "columns"):  # a data frame of pandas
        return targets.to_dict("records")
    if isinstance(targets, Iterable) and not isinstance(targets, Mapping):
        return list(targets)
    remedy = "Give a file, a data frame, or a list of rows as dicts."
    raise UserError(f"{type(targets).__name__!r} is no table.", where="targets", remedy=remedy)


def recipe_from(
    recipe: Any,
    overrides: Sequence[str],
    *,
    model: str | None = None,
    targets: Any = None,
    samples: int | None = None,
    seed: int | None = None,
) -> tuple[Recipe, SettingsFile | None]:
    """A recipe, in whatever form ``run`` takes it, and where it stands.

    Args:
        model: in place of its own; its family says what a preset means.
        targets, samples, seed: in place of the recipe's.

    Raises:
        UserError: it cannot be read or does not validate.
    """
    found, origin = _read(recipe, overrides, model, targets)
    changes = {
        name: whole(name, value, least=least)
        for name, value, least in (("samples", samples, 1), ("seed", seed, 0))
        if value is not None
    }
    return found.model_copy(update=changes), origin


def _read(recipe: Any, overrides: Sequence[str], model: str | None, targets: Any) -> tuple[Recipe, SettingsFile | None]:
    if isinstance(recipe, str | Path):
        named = [] if model is None else [f"model={json.dumps(model)}"]
        return load_recipe(str(recipe), [*overrides, *named], targets=targets)
    if overrides:
        raise UserError("can be laid over recipes by name only.", where="overrides", remedy="Change the recipe itself.")
    if isinstance(recipe, Recipe):
        return recipe if targets is None else recipe.model_copy(update={"targets": targets}), None
    if isinstance(recipe, Mapping):
        return validated({**recipe, **({} if model is None else {"model": model})}, targets=targets)
    what = f"{type(recipe).__name__!r} is not a recipe."
    raise UserError(what, where="recipe", remedy="Give a name, a file, a dict of its settings or a Recipe.")
