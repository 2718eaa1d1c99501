"""What the texts of a long run depend on in addition to its settings: weights, packages of controls and files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlmctl.annotators.causal import is_causal_model
from dlmctl.checkpoint.control_weights import control_folders
from dlmctl.checkpoint.digests import file_digest
from dlmctl.checkpoint.kept_digests import KeptDigests
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.resolve import SCORER, configured_folder, hub_commit
from dlmctl.control.base import Composite, Control
from dlmctl.control.registry import find_control, offered_controls, origin
from dlmctl.control.user_files import digest_in_use, parse_reference
from dlmctl.datasets.known_texts import FILE as TRAINING_TEXTS
from dlmctl.errors import ModelError
from dlmctl.generation.ranking import needs_acceptability
from dlmctl.generation.sample_groups import is_ranked_by_scorer
from dlmctl.metrics.acceptability import find_acceptability
from dlmctl.recipe.recipe import ControlSpec, Recipe, nested_specs
from dlmctl.text.plain_values import name_of

# Files that a control or a scorer reads; its card only says how it was made.
READ_SUFFIXES = (".safetensors", "labels.json", "config.json", "vocab.json")
# Files that Hugging Face reads from a model's folder: weights and tokenizer. Of its subfolders only a scorer and the
# tokenizer of one are read.
PUBLISHED_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model")
READ_SUBFOLDERS = (".", SCORER, "tokenizer", f"{SCORER}/tokenizer")

# Settings that change texts by rounding at most, or that others determine: a preset by sampler and guidance, a model by
# its weights, a table of targets by its digest.
NEUTRAL = {"description", "samples", "batch_size", "device", "model", "preset", "targets"}
# Digits of a digest that is stored with every text.
DIGEST_DIGITS = 16


def about_run(recipe: Recipe, pretrained: Pretrained) -> dict[str, Any]:
    """The facts stored with every text of a run: its seed, its model, and digests of the weights and the recipe."""
    return {
        "seed": recipe.seed,
        "model": recipe.model,
        "model_digest": weights_digest(pretrained)[:DIGEST_DIGITS],
        "recipe_digest": recipe_digest(recipe),
    }


def recipe_digest(recipe: Recipe) -> str:
    """A digest of a recipe's settings, without the number of its texts and their seed."""
    settings = recipe.model_dump(mode="json", exclude=NEUTRAL | {"seed"}, fallback=name_of)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:DIGEST_DIGITS]


def identity(recipe: Recipe, pretrained: Pretrained) -> dict[str, Any]:
    """Digests (SHA-256) and versions, so that a run is not continued with other weights or packages of the same name.

    Returns:
        ``weights`` of the model; ``control_weights`` of each control that has any; ``scorer``, if texts depend on it;
        with ``unique`` the excluded ``training_texts``; the versions of ``packages`` of third-party controls; and the
        ``files``, folders and models that the recipe names, of a model in the hub's cache its commit.
    """
    names = sorted({spec.name for spec in nested_specs(recipe.control_specs())} & offered_controls().keys())
    packages = {name: origin(offered_controls()[name][0]) for name in names}
    return {
        "weights": weights_digest(pretrained),
        "control_weights": {
            name: digest
            for name in names
            if (digest := _folder_digest(control_folders(pretrained.folder, pretrained.model, name)))
        },
        "scorer": _scorer_digest(recipe, pretrained) if _depends_on_scorer(recipe) else None,
        "packages": {name: package for name, package in packages.items() if not package.startswith("dlmctl ")},
        **({"training_texts": _training_text_digest(pretrained.folder)} if recipe.unique else {}),
        "files": {name: _user_digest(path) for name, path in sorted(files_of(recipe).items())},
    }


def files_of(recipe: Recipe) -> dict[str, Path]:
    """The files and folders that a recipe names, by the name it uses: as file.py:name, in parameters that a control
    ``reads``, and as ``second_scorer``; also those of a model given by its bundled name or hub name."""
    specs = list(nested_specs(recipe.control_specs()))
    params_of_kinds = [(kind, params) for spec in specs for kind, sets in [_control_params(spec)] for params in sets]
    names = [spec.name for spec in specs]
    names += [value for _, params in params_of_kinds for value in params.values() if isinstance(value, str)]
    paths = {name: named.path for name in names if (named := parse_reference(name)) is not None}
    second = recipe.second_scorer
    models = [second] if second is not None and _depends_on_scorer(recipe) else []
    for kind, params in params_of_kinds:
        paths |= {name: Path(name) for name in _strings(params, getattr(kind.Params, "reads", ()))}
        models += _strings(params, getattr(kind.Params, "models", ()))
    paths |= {name: folder for name in models if (folder := _model_folder(name)) is not None}
    return {name: path for name, path in paths.items() if os.path.exists(path)}


def _strings(params: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """The values of those ``fields`` that are given as strings."""
    return [value for field in fields if isinstance(value := params.get(field), str)]


def _model_folder(name: str) -> Path | None:
    """The folder of a model by path, bundled name or hub name; None if there is none, which loading it reports."""
    try:
        return Path(name) if os.path.isdir(name) else configured_folder(name)
    except ModelError:
        return None


def _control_params(spec: ControlSpec) -> tuple[type[Control[Any]], Sequence[Mapping[str, Any]]]:
    """The control class of an entry, and its parameter sets as given; no sets for a combination."""
    if spec.control is not None:
        param_sets = [] if isinstance(spec.control, Composite) else spec.control.sets
        return type(spec.control), [params.model_dump(exclude_unset=True) for params in param_sets]
    return (find_control(spec.name), spec.params) if spec.params else (Composite, [])


def _training_text_digest(folder: Path) -> str | None:
    path = folder / TRAINING_TEXTS
    return file_digest(path) if path.exists() else None


def _scorer_digest(recipe: Recipe, pretrained: Pretrained) -> str | None:
    named = pretrained.scorer
    if named is not None and is_causal_model(named):
        return _user_digest(named)
    return _folder_digest(_scorer_folders(recipe, pretrained))


def _scorer_folders(recipe: Recipe, pretrained: Pretrained) -> list[Path]:
    with_acceptability = needs_acceptability(recipe.rank_by, recipe.candidates, recipe.until, recipe.quota)
    judge = find_acceptability(pretrained) if with_acceptability else None
    # The weights may be those of another model, which reads the texts of this one.
    return [pretrained.scorer_folder, *([] if judge is None else [judge.folder])]


def _depends_on_scorer(recipe: Recipe) -> bool:
    """Whether the texts depend on the scorer."""
    until = recipe.until
    uses_bound = until is not None and (until.bounds_fluency or until.repair)
    asked = any(_control_params(spec)[0].asks_scorer for spec in nested_specs(recipe.control_specs()))
    is_reward = recipe.sampler.particles > 1 and recipe.sampler.reward == "lm_score"
    return asked or uses_bound or is_reward or is_ranked_by_scorer(recipe)


def _folder_digest(folders: list[Path]) -> str | None:
    """A digest of the files that are read from ``folders``; None if there are none."""
    files = [
        (folder, path) for folder in folders for path in sorted(folder.rglob("*")) if path.name.endswith(READ_SUFFIXES)
    ]
    named_files = [(path.relative_to(folder).as_posix(), path) for folder, path in files]
    return _digest_of(named_files) if named_files else None


def _user_digest(path: Path) -> str:
    """SHA-256 of a file, or of the files in a model's folder; of code, as it was imported; a hub model's commit."""
    if path.is_file():
        return digest_in_use(path) or file_digest(path)
    if (commit := hub_commit(path)) is not None:
        return commit
    files = [
        (file.relative_to(path).as_posix(), file)
        for subfolder in READ_SUBFOLDERS
        for file in sorted((path / subfolder).glob("*"))
        if file.name.endswith(PUBLISHED_SUFFIXES) and file.is_file()
    ]
    return _digest_of(files)


def _digest_of(files: Sequence[tuple[str, Path]]) -> str:
    """A digest of files and their names, in this order."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name} {file_digest(path)}\n".encode())
    return digest.hexdigest()


_WEIGHTS = KeptDigests()


def weights_digest(pretrained: Pretrained) -> str:
    """SHA-256 of the weights of a model, kept until they change (``KeptDigests``): a server asks for it with every
    request."""
    tensors = sorted(pretrained.model.state_dict().items())
    return _WEIGHTS.of(pretrained.model, [tensor for _, tensor in tensors], lambda: _digest_of_tensors(tensors))


def _digest_of_tensors(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """A digest of tensors and their names, in this order."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
