"""What the texts of a long run follow from beside its settings: the weights in use and the packages of its controls."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dlmctl.checkpoint.control_weights import acceptability_folder, control_folders
from dlmctl.checkpoint.digests import file_digest
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.resolve import resolve
from dlmctl.control.base import Composite, Control
from dlmctl.control.registry import find_control, offers, origin
from dlmctl.control.user_files import named_in
from dlmctl.datasets.known_texts import FILE as TRAINING_TEXTS
from dlmctl.generation.ranking import asks_reader, ranks_by_scorer
from dlmctl.recipe.recipe import ControlSpec, Recipe, every

# What a control or a scorer reads. Its card is not: it says how it was made.
READ = (".safetensors", "labels.json", "config.json", "vocab.json")
# What Hugging Face reads of a model's folder, weights and tokenizer; nothing of the folders in it.
PUBLISHED = (".safetensors", ".bin", ".json", ".txt", ".model")

# What changes no text but by rounding, or is said by other settings: a preset by sampler and guidance, a model by its
# weights, a table of targets by its digest.
NEUTRAL = {"description", "samples", "batch_size", "device", "model", "preset", "targets"}
# Of a digest, where it stands beside every text.
DIGITS = 16


def about_run(recipe: Recipe, pretrained: Pretrained) -> dict[str, Any]:
    """What stands beside every text of a run: its seed, its model, and digests of the weights and of the recipe."""
    return {
        "seed": recipe.seed,
        "model": recipe.model,
        "model_digest": weights_digest(pretrained)[:DIGITS],
        "recipe_digest": recipe_digest(recipe),
    }


def recipe_digest(recipe: Recipe) -> str:
    """A digest of what a recipe asks, whatever the number and the seed of its texts."""
    settings = recipe.model_dump(mode="json", exclude=NEUTRAL | {"seed"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:DIGITS]


def identity(recipe: Recipe, pretrained: Pretrained) -> dict[str, Any]:
    """Digests (SHA-256) and versions, by what they are of, so that a run is not continued with others of the same name.

    Returns:
        ``weights`` of the model; ``control_weights`` of each control that has any; ``scorer``, where it ranks; with
        ``unique`` the ``training_texts`` of which none may come; the versions of ``packages`` of controls that are not
        dlmctl's own; and ``files`` and folders of the user's own.
    """
    names = sorted({spec.name for spec in every(recipe.control_specs())} & offers().keys())
    packages = {name: origin(offers()[name][0]) for name in names}
    return {
        "weights": weights_digest(pretrained),
        "control_weights": {
            name: digest
            for name in names
            if (digest := _folder_digest(control_folders(pretrained.folder, pretrained.model, name)))
        },
        "scorer": _folder_digest(_scorers(recipe, pretrained)) if _scorer_chooses(recipe) else None,
        "packages": {name: package for name, package in packages.items() if not package.startswith("dlmctl ")},
        **({"training_texts": _known_digest(pretrained.folder)} if recipe.unique else {}),
        "files": {name: _user_digest(path) for name, path in sorted(files_of(recipe).items())},
    }


def files_of(recipe: Recipe) -> dict[str, Path]:
    """The user's own files and folders that a recipe names, by what is named: as file.py:name, and in parameters that
    a control ``reads``."""
    specs = list(every(recipe.control_specs()))
    given = [(kind, params) for spec in specs for kind, sets in [_asked(spec)] for params in sets]
    names = [spec.name for spec in specs]
    names += [value for _, params in given for value in params.values() if isinstance(value, str)]
    found = {name: named.path for name in names if (named := named_in(name)) is not None}
    for kind, params in given:
        told = [params.get(field) for field in getattr(kind.Params, "reads", ())]
        found |= {name: Path(name) for name in told if isinstance(name, str)}
    return {name: path for name, path in found.items() if os.path.exists(path)}


def _asked(spec: ControlSpec) -> tuple[type[Control[Any]], Sequence[Mapping[str, Any]]]:
    """The control of an entry, and its sets of parameters as they are given; none of a combination."""
    if spec.made is not None:
        sets = [] if isinstance(spec.made, Composite) else spec.made.sets
        return type(spec.made), [params.model_dump(exclude_unset=True) for params in sets]
    return (find_control(spec.name), spec.params) if spec.params else (Composite, [])


def _known_digest(folder: Path) -> str | None:
    path = folder / TRAINING_TEXTS
    return file_digest(path) if path.exists() else None


def _scorers(recipe: Recipe, pretrained: Pretrained) -> list[Path]:
    second = [] if recipe.second_scorer is None else [resolve(recipe.second_scorer)]
    reads = asks_reader(recipe.rank_by, recipe.candidates, recipe.until, recipe.quota)
    reader = acceptability_folder(pretrained.folder, pretrained.model) if reads else None
    return [pretrained.folder / "scorer", *second, *([reader] if reader is not None else [])]


def _scorer_chooses(recipe: Recipe) -> bool:
    """Whether another scorer might make other texts."""
    until = recipe.until
    bounded = until is not None and (until.bounds_fluency or until.repair)
    return bounded or ranks_by_scorer(recipe.rank_by, recipe.candidates, until, recipe.quota)


def _folder_digest(folders: list[Path]) -> str | None:
    """One digest of the files that are read from ``folders``; None where there are none."""
    files = [(folder, path) for folder in folders for path in sorted(folder.rglob("*")) if path.name.endswith(READ)]
    named = [(path.relative_to(folder).as_posix(), path) for folder, path in files]
    return _digest_of(named) if named else None


def _user_digest(path: Path) -> str:
    """SHA-256 of a file, or over the files of a folder with a model."""
    if path.is_file():
        return file_digest(path)
    files = [file for file in sorted(path.iterdir()) if file.name.endswith(PUBLISHED) and file.is_file()]
    return _digest_of([(file.name, file) for file in files])


def _digest_of(files: Sequence[tuple[str, Path]]) -> str:
    """One digest of files and their names, in this order."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def weights_digest(pretrained: Pretrained) -> str:
    """SHA-256 over the weights of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(pretrained.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
