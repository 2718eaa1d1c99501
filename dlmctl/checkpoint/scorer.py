"""Scorers on disk: a folder as transformers saves a GPT-2, with the digests of its files in ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dlmctl.checkpoint.digests import DIGESTS, check_digests, folder_digests
from dlmctl.checkpoint.weights import load_weights, require_fit, take_over, without_memory
from dlmctl.errors import ModelError, brief
from dlmctl.models.gpt2 import EPSILON, GPT2, GPT2Sizes
from dlmctl.models.transformer import MAX_LAYERS, MAX_LENGTH, MAX_WIDTH
from dlmctl.text.files import read_object

# Each size of a GPT-2 that says how much is built, and the most it may be.
_BOUNDS = {
    "n_layer": MAX_LAYERS,
    "n_embd": MAX_WIDTH,
    "n_head": MAX_WIDTH,
    "n_positions": MAX_LENGTH,
    "vocab_size": 4_000_000,
    "n_inner": 16 * MAX_WIDTH,
}
# What a GPT-2 may vary and a scorer does not.
_PLAIN = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": EPSILON,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
# The head over words is the table of embeddings once more, and not stored.
_TIED = "lm_head.weight"
_REMEDY = "Make one with `dlmctl train scorer`."


def seal_scorer(folder: Path) -> None:
    """Write the digests of the weights and the vocabulary of a saved scorer into its ``config.json``."""
    path = folder / "config.json"
    config = read_object(path)
    files = [file for pattern in ("*.safetensors", "vocab.json", "tokenizer/*") for file in folder.glob(pattern)]
    config[DIGESTS] = folder_digests(folder, files)
    path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def scorer_sizes(folder: Path) -> dict[str, Any]:
    """The settings in ``config.json`` of a scorer.

    Raises:
        ModelError: they cannot be read, are of another kind of model, or no scorer has such sizes.
    """
    path = folder / "config.json"
    config = read_object(path, remedy=_REMEDY)
    if config.get("model_type") != "gpt2":
        raise ModelError("is not the configuration of a scorer: model_type is not 'gpt2'.", where=str(path))
    for name, most in _BOUNDS.items():
        size = config.get(name)
        if size is None and name == "n_inner":
            continue
        if type(size) is not int or not 0 < size <= most:
            said = brief(ValueError(repr(size)))
            raise ModelError(f"{name} is {said}; it is a number from 1 to {most:,}.", where=str(path), remedy=_REMEDY)
    for name, only in _PLAIN.items():
        if config.get(name, only) != only:
            said = brief(ValueError(repr(config[name])))
            raise ModelError(f"{name} is {said}; a scorer has {only!r}.", where=str(path), remedy=_REMEDY)
    return config


def load_scorer_model(folder: Path) -> GPT2:
    """The network of a scorer in float32, evaluation mode.

    Raises:
        ModelError: a file is missing, damaged or not the one that was saved, or weights and sizes do not fit.
    """
    settings = scorer_sizes(folder)
    digests = settings.get(DIGESTS)
    state = load_weights(folder)
    state.pop(_TIED, None)
    if settings["n_embd"] % settings["n_head"]:
        what = f"n_embd {settings['n_embd']} is no multiple of n_head {settings['n_head']}."
        raise ModelError(what, where=str(folder / "config.json"), remedy=_REMEDY)
    sizes = GPT2Sizes(**{name: settings[name] for name in GPT2Sizes._fields if name in settings})
    with without_memory():  # whatever sizes config.json claims
        scorer = GPT2(sizes)
    require_fit(state, scorer.state_dict(), folder / "model.safetensors")
    check_digests(folder, digests, "config.json")
    take_over(scorer, state)
    return scorer.eval()
