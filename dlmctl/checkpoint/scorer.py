"""Scorers on disk: a GPT-2 folder as saved by transformers, with digests of its files in ``config.json``."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dlmctl.checkpoint.digests import DIGESTS, check_digests, folder_digests
from dlmctl.checkpoint.resolve import SCORER, resolve
from dlmctl.checkpoint.weights import load_weights, require_fit, staged, take_over, without_memory, write_shards
from dlmctl.errors import ModelError, short_message
from dlmctl.models.gpt2 import EPSILON, GPT2, GPT2Sizes
from dlmctl.models.transformer import MAX_LAYERS, MAX_LENGTH, MAX_WIDTH
from dlmctl.text.files import read_object
from dlmctl.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

# Maximum of each GPT-2 setting that determines memory.
_MAX_SIZES = {
    "n_layer": MAX_LAYERS,
    "n_embd": MAX_WIDTH,
    "n_head": MAX_WIDTH,
    "n_positions": MAX_LENGTH,
    "vocab_size": 4_000_000,
    "n_inner": 16 * MAX_WIDTH,
}
# GPT-2 settings that are fixed for scorers.
_FIXED = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": EPSILON,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
# The key in ``config.json`` for the ``scorer_digest`` of each scorer that this one was trained on from.
ORIGINS = "trained_on_from"
DIGEST_BYTES = 1 << 18
"""Bytes at the end of a scorer's weights that identify it."""
# The output head is tied to the embeddings and not stored.
TIED = "lm_head.weight"
_REMEDY = "Train one with `dlmctl train scorer`."


def save_scorer(scorer: GPT2LMHeadModel, tokenizer: Tokenizer, folder: Path, origins: Sequence[str] = ()) -> None:
    """Write weights (safetensors, float16: scores differ by less than 0.001 nats), sizes and vocabulary.

    They replace an earlier scorer together, once all of them are written.

    Args:
        origins: as for ``seal_scorer``.

    Raises:
        UserError: the folder cannot be written.
    """
    state = {name: tensor for name, tensor in scorer.state_dict().items() if name != TIED}
    config = copy.deepcopy(scorer.config)
    config.architectures = [type(scorer).__name__]
    with staged(folder) as staging:
        config.save_pretrained(staging)
        write_shards(state, staging, dtype=torch.float16)
        tokenizer.save(staging)
        seal_scorer(staging, origins)


def seal_scorer(folder: Path, origins: Sequence[str] = ()) -> None:
    """Write the digests of the weights and the vocabulary of a saved scorer into its ``config.json``, and the
    ``origins``, if there are any: the ``scorer_lineage`` of the one that it was trained on from."""
    path = folder / "config.json"
    config = read_object(path)
    files = [file for pattern in ("*.safetensors", "vocab.json", "tokenizer/*") for file in folder.glob(pattern)]
    config[DIGESTS] = folder_digests(folder, files)
    if origins:
        config[ORIGINS] = list(origins)
    path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def scorer_digest(folder: Path) -> str | None:
    """A digest that identifies the scorer of a folder, None if its weights are not in one file: the SHA-256 of its last
    ``DIGEST_BYTES``, since training changes all weights, and hashing the whole file would slow down every start."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        file.seek(-min(DIGEST_BYTES, weights.stat().st_size), os.SEEK_END)
        return hashlib.sha256(file.read()).hexdigest()


def scorer_lineage(folder: Path) -> list[str | None]:
    """The ``scorer_digest`` of a scorer and of those that it was trained on from.

    Raises:
        ModelError: its ``config.json`` cannot be read.
    """
    path = folder / "config.json"
    origins = read_object(path).get(ORIGINS, []) if os.path.lexists(path) else []
    return [scorer_digest(folder), *(origins if isinstance(origins, list) else [])]


def scorer_folder(source: str | Path) -> Path:
    """The folder of a scorer that is given by itself or by a model that has one; of any other model, its own.

    Args:
        source: in any form that ``dlmctl.checkpoint.resolve.resolve`` accepts.

    Raises:
        ModelError: there is no such model.
    """
    folder = resolve(source)
    return folder / SCORER if (folder / SCORER).is_dir() else folder


def scorer_sizes(folder: Path) -> dict[str, Any]:
    """The settings in ``config.json`` of a scorer.

    Raises:
        ModelError: they cannot be read, belong to another kind of model, or are out of range for a scorer.
    """
    path = folder / "config.json"
    config = read_object(path, remedy=_REMEDY)
    if config.get("model_type") != "gpt2":
        raise ModelError("is not the configuration of a scorer: model_type is not 'gpt2'.", where=str(path))
    for name, maximum in _MAX_SIZES.items():
        size = config.get(name)
        if size is None and name == "n_inner":
            continue
        if type(size) is not int or not 0 < size <= maximum:
            value = short_message(ValueError(repr(size)))
            what = f"{name} is {value}; it must be a number from 1 to {maximum:,}."
            raise ModelError(what, where=str(path), remedy=_REMEDY)
    for name, required in _FIXED.items():
        if config.get(name, required) != required:
            value = short_message(ValueError(repr(config[name])))
            raise ModelError(f"{name} is {value}; a scorer has {required!r}.", where=str(path), remedy=_REMEDY)
    return config


def load_scorer_model(folder: Path) -> GPT2:
    """The network of a scorer in float32, in evaluation mode.

    Raises:
        ModelError: a file is missing, damaged or not the one that was saved, or weights and sizes do not match.
    """
    settings = scorer_sizes(folder)
    digests = settings.get(DIGESTS)
    state = load_weights(folder)
    state.pop(TIED, None)
    if settings["n_embd"] % settings["n_head"]:
        what = f"n_embd {settings['n_embd']} is not a multiple of n_head {settings['n_head']}."
        raise ModelError(what, where=str(folder / "config.json"), remedy=_REMEDY)
    sizes = GPT2Sizes(**{name: settings[name] for name in GPT2Sizes._fields if name in settings})
    with without_memory():  # the sizes in config.json are not trusted yet
        scorer = GPT2(sizes)
    require_fit(state, scorer.state_dict(), folder / "model.safetensors")
    check_digests(folder, digests, "config.json")
    take_over(scorer, state)
    return scorer.eval()
