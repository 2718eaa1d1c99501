"""Checkpoints of the original Diffusion-LM (Li et al. 2022), as its training script leaves them.

A folder holds ``ema_RATE_STEP.pt`` and ``modelSTEP.pt``, ``training_args.json`` and ``vocab.json``; the sizes of
its BERT encoder may lie beside them in the folder that ``config_name`` names. Only the architecture
``transformer`` trained end to end can be loaded; the rest is refused with the reason.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor

from dlmctl.diffusion import DiffusionLM, ModelConfig
from dlmctl.errors import DataError, ModelError
from dlmctl.schedule import ScheduleName
from dlmctl.tokenizer import WordTokenizer

BERT_HEAD_WIDTH = 64
ROUNDING = {1: "dot", 2: "l2"}

# What each argument must be, and the value the original takes where the file is silent.
REQUIRED = {
    "model_arch": ("transformer", "trans-unet", "only the architecture 'transformer' can be loaded"),
    "training_mode": ("e2e", "emb", "only models trained end to end ('e2e') can be loaded"),
    "experiment_mode": ("lm", "lm", "only unconditional models ('lm') can be loaded"),
    "class_cond": (False, False, "class-conditional models cannot be loaded"),
    "learn_sigma": (False, False, "models with learned variances cannot be loaded"),
    "timestep_respacing": ("", "", "models trained on respaced steps cannot be loaded"),
}

_LAYER = "input_transformers.layer.{}."
_OUTER = {
    "lm_head.bias": "rounding_bias",
    "time_embed.0": "denoiser.encoder.time.0",
    "time_embed.2": "denoiser.encoder.time.2",
    "input_up_proj.0": "denoiser.encoder.input.0",
    "input_up_proj.2": "denoiser.encoder.input.2",
    "position_embeddings.weight": "denoiser.encoder.positions.weight",
    "LayerNorm": "denoiser.encoder.input_norm",
    "output_down_proj.0": "denoiser.output.0",
    "output_down_proj.2": "denoiser.output.2",
}
_INNER = {
    "attention.output.dense": "attention_out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
    "output.LayerNorm": "mlp_norm",
}


def load_original(folder: str | Path) -> tuple[DiffusionLM, WordTokenizer]:
    """A model of the original Diffusion-LM and its vocabulary: float32, on the CPU, in evaluation mode.

    The newest EMA weights are taken, or the newest plain ones if there are none. Where the folder of
    ``config_name`` is absent, attention heads are 64 wide as in every published BERT (12 for BERT-base).

    Raises:
        ModelError: a file is missing or damaged, or the model is of a kind that cannot be loaded.
    """
    folder = Path(folder)
    arguments = _read_object(folder / "training_args.json")
    _refuse_other_kinds(arguments, folder / "training_args.json")
    path = newest_weights(folder)
    weights = _read_weights(path)
    try:
        tokenizer = WordTokenizer.load(folder)
    except DataError as error:
        raise ModelError(error.what, where=str(folder / "vocab.json")) from None
    try:
        config = _config(arguments, weights, folder)
        model = DiffusionLM(config)
    except KeyError as error:
        raise ModelError(f"the tensor {error} is missing.", where=str(path)) from None
    except (ValidationError, ValueError) as error:
        raise ModelError(f"sizes that cannot be: {str(error).splitlines()[-1].strip()}", where=str(folder)) from None
    if len(tokenizer) != config.vocab_size:
        raise ModelError(
            f"vocab.json has {len(tokenizer)} entries, {path.name} {config.vocab_size}.", where=str(folder)
        )
    mapped = convert(weights, config.denoiser.layers, path)
    for name, tensor in model.state_dict().items():
        if mapped[name].shape != tensor.shape:
            shapes = f"{list(mapped[name].shape)}, not {list(tensor.shape)}"
            raise ModelError(f"the tensor for {name} has the shape {shapes}.", where=str(path))
    model.load_state_dict(mapped)
    return model.eval(), tokenizer


def newest_weights(folder: Path) -> Path:
    """The newest ``ema_*.pt`` of a folder, else its newest ``model*.pt``.

    Raises:
        ModelError: there is neither.
    """
    for pattern in (r"ema_([\d.]+)_(\d+)\.pt", r"model()(\d+)\.pt"):
        found = [(match, path) for path in folder.glob("*.pt") if (match := re.fullmatch(pattern, path.name))]
        if found:
            return max(found, key=lambda item: (int(item[0][2]), item[0][1]))[1]
    raise ModelError(
        "there are no weights: neither ema_*.pt nor model*.pt.",
        where=str(folder),
        remedy="Copy them here from the run of the original.",
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}.", where=str(path)) from None
    if not isinstance(value, dict):
        raise ModelError("must hold a JSON object.", where=str(path))
    return value


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's and zip's errors for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"is damaged, or holds more than weights: {reason}", where=str(path)) from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError("does not hold the weights of one model.", where=str(path))
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _refuse_other_kinds(arguments: dict[str, Any], path: Path) -> None:
    for name, (wanted, default, reason) in REQUIRED.items():
        value = arguments.get(name, default)
        if value != wanted:
            raise ModelError(f"{name} is {value!r}: {reason}.", where=str(path))
    schedule = arguments.get("noise_schedule", "linear")
    if schedule not in get_args(ScheduleName):
        raise ModelError(f"noise_schedule is {schedule!r}, which is unknown.", where=str(path))
    if arguments.get("logits_mode", 1) not in ROUNDING:
        raise ModelError(f"logits_mode is {arguments['logits_mode']!r}, which is unknown.", where=str(path))
    # Unscaled, the network saw k itself; with T = 1000 that is the same.
    if not arguments.get("rescale_timesteps", True) and arguments.get("diffusion_steps", 1000) != 1000:
        raise ModelError("rescale_timesteps is false: the network must have seen time on 0..1000.", where=str(path))


def _config(arguments: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> ModelConfig:
    vocab_size, embed_dim = weights["word_embedding.weight"].shape
    max_length, hidden = weights["position_embeddings.weight"].shape
    layers = len({name.split(".")[2] for name in weights if name.startswith("input_transformers.layer.")})
    denoiser = {
        "hidden": hidden,
        "layers": layers,
        "heads": _heads(arguments, hidden, folder),
        "feedforward": weights[_LAYER.format(0) + "intermediate.dense.weight"].shape[0],
        "dropout": arguments.get("dropout", 0.0),
        "norm_first": False,
        "max_length": max_length,
        "time_channels": weights["time_embed.0.weight"].shape[1],
    }
    settings = {
        "vocab_size": vocab_size,
        "length": int(arguments.get("image_size", 8)) ** 2,
        "embed_dim": embed_dim,
        "denoiser": denoiser,
        "schedule": arguments.get("noise_schedule", "linear"),
        "schedule_steps": arguments.get("diffusion_steps", 1000),
        "objective": "paper",
        "prediction": "x0" if arguments.get("predict_xstart", False) else "epsilon",
        "rounding": ROUNDING[arguments.get("logits_mode", 1)],
        "self_conditioning": False,
    }
    return ModelConfig.model_validate(settings)


def _heads(arguments: dict[str, Any], hidden: int, folder: Path) -> int:
    """Attention heads of the BERT encoder: the weights do not show them."""
    name = Path(str(arguments.get("config_name", ""))).name
    path = folder / name / "config.json"
    if not name or not path.is_file():
        return max(1, hidden // BERT_HEAD_WIDTH)
    bert = _read_object(path)
    expected = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"}
    for key, wanted in expected.items():
        if bert.get(key, wanted) != wanted:
            raise ModelError(f"{key} is {bert[key]!r}; only {wanted!r} can be loaded.", where=str(path))
    return int(bert.get("num_attention_heads", 12))


def convert(weights: dict[str, Tensor], layers: int, where: Path) -> dict[str, Tensor]:
    """The original's tensors under the names of ``DiffusionLM``; q, k and v become one matrix.

    Raises:
        ModelError: a tensor is missing, or one is left that has no place.
    """
    left = {name: tensor.float() for name, tensor in weights.items() if name != "position_ids"}
    mapped: dict[str, Tensor] = {}
    try:
        # The head is tied to the embeddings, but the original averages (EMA) the embeddings only, and on
        # loading the head's copy comes last and so is the one in use.
        embeddings = left.pop("word_embedding.weight")
        mapped["embedding.weight"] = left.pop("lm_head.weight", embeddings)
        for theirs, ours in _OUTER.items():
            _move(left, mapped, theirs, ours)
        for layer in range(layers):
            inside, block = _LAYER.format(layer), f"denoiser.encoder.blocks.{layer}."
            for kind in ("weight", "bias"):
                parts = [left.pop(f"{inside}attention.self.{part}.{kind}") for part in ("query", "key", "value")]
                mapped[f"{block}qkv.{kind}"] = torch.cat(parts)
            for theirs, ours in _INNER.items():
                _move(left, mapped, inside + theirs, block + ours)
    except KeyError as error:
        raise ModelError(f"the tensor {error} is missing.", where=str(where)) from None
    if left:
        raise ModelError(f"the tensor {next(iter(left))!r} has no place in our transformer.", where=str(where))
    return mapped


def _move(left: dict[str, Tensor], mapped: dict[str, Tensor], theirs: str, ours: str) -> None:
    """One tensor, or the weight and bias of one layer."""
    if theirs.endswith((".weight", ".bias")):
        mapped[ours] = left.pop(theirs)
        return
    for kind in ("weight", "bias"):
        mapped[f"{ours}.{kind}"] = left.pop(f"{theirs}.{kind}")
