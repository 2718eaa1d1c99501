"""Conversion between the original's ``training_args.json`` and our configuration; weights fill in what it omits."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from dlmctl.checkpoint import bert
from dlmctl.checkpoint.original.names import WORDS
from dlmctl.diffusion.model import ModelConfig
from dlmctl.diffusion.schedule import ScheduleName
from dlmctl.errors import ModelError, readable
from dlmctl.models.transformer import TransformerConfig
from dlmctl.models.unet import UNetConfig
from dlmctl.models.unet2d import FoldedUNetConfig
from dlmctl.text.files import read_object

ARGUMENTS, BERT_FOLDER = "training_args.json", "bert_config"
BERT_HEAD_WIDTH = 64
GROUPS = 32
ROUNDING = {1: "dot", 2: "l2"}
# The original's channel multipliers by image_size, and those of all other sizes.
MULTIPLIERS = {256: [1, 1, 2, 2, 4, 4], 64: [1, 2, 3, 4]}
OTHER_MULTIPLIERS = [1, 2, 2, 2]

FLAGS = ("predict_xstart", "rescale_timesteps", "class_cond", "learn_sigma", "use_scale_shift_norm")
COUNTS = ("image_size", "diffusion_steps", "num_heads", "in_channel", "num_channels", "vocab_size")

Weights = dict[str, Tensor]


def read_arguments(folder: Path) -> dict[str, Any]:
    """The arguments of a training run of the original.

    Raises:
        ModelError: the folder or the file is missing, or the file is damaged.
    """
    path = folder / ARGUMENTS
    if not folder.is_dir():
        raise ModelError("there is no such folder.", where=str(folder))
    if not os.path.lexists(path):
        raise ModelError(
            "is missing: this is a checkpoint of the original Diffusion-LM, whose weights do not determine the noise "
            "schedule or what the network predicts.",
            where=str(path),
            remedy='Write it with the arguments of the run, such as {"diffusion_steps": 2000, "noise_schedule": '
            '"sqrt", "predict_xstart": true}.',
        )
    return read_object(path)


def refuse_other_kinds(arguments: dict[str, Any], weights: Weights, path: Path) -> None:
    """Raise ModelError with the reason if this kind of model cannot be loaded."""
    _refuse_other_types(arguments, path)
    end_to_end, outputs = WORDS in weights, weights.get("out.2.bias", weights.get("output_down_proj.2.bias"))
    width = weights[WORDS].shape[1] if end_to_end else 0
    # Each argument: its required value, its default as implied by the weights, and the reason.
    requirements = {
        "training_mode": (
            "e2e",
            "e2e" if end_to_end else "emb",
            "only models trained end to end ('e2e') can be loaded",
        ),
        "experiment_mode": (
            "lm",
            "conditional_gen" if "encoder_emb.weight" in weights else "lm",
            "only unconditional models ('lm') can be loaded",
        ),
        "class_cond": (False, "label_emb.weight" in weights, "class-conditional models cannot be loaded"),
        "learn_sigma": (
            False,
            outputs is not None and width > 0 and len(outputs) == 2 * width,
            "models with learned variances cannot be loaded",
        ),
        "timestep_respacing": ("", "", "models trained on respaced steps cannot be loaded"),
        "use_scale_shift_norm": (True, True, "only U-Nets that scale and shift their norms can be loaded"),
        "num_heads_upsample": (-1, -1, "attention heads on the way up cannot differ from those on the way down"),
    }
    for name, (required, default, reason) in requirements.items():
        value = arguments.get(name, default)
        if value != required:
            raise ModelError(f"{name} is {value!r}: {reason}.", where=str(path))
    schedule = arguments.get("noise_schedule", "linear")
    if schedule not in get_args(ScheduleName):
        raise ModelError(f"noise_schedule is {schedule!r}, which is unknown.", where=str(path))
    if arguments.get("logits_mode", 1) not in ROUNDING:
        raise ModelError(f"logits_mode is {arguments['logits_mode']!r}, which is unknown.", where=str(path))
    # Without rescaling the network was given step k itself; with T = 1000 the two are the same.
    if not arguments.get("rescale_timesteps", True) and arguments.get("diffusion_steps", 1000) != 1000:
        raise ModelError("rescale_timesteps is false: the network must have seen time on 0..1000.", where=str(path))


def _refuse_other_types(arguments: dict[str, Any], path: Path) -> None:
    """Raise ModelError if an argument that determines what the weights mean has the wrong type: the string "False"
    would count as true."""
    for name in FLAGS:
        value = arguments.get(name, False)
        if not isinstance(value, bool):
            raise ModelError(f"{name} is {readable(repr(value), 40)}, and must be true or false.", where=str(path))
    for name in COUNTS:
        value = arguments.get(name, 1)
        if type(value) is not int or value < 1:
            raise ModelError(f"{name} is {readable(repr(value), 40)}, and must be a number from 1.", where=str(path))


def read_config(arguments: dict[str, Any], weights: Weights, folder: Path) -> ModelConfig:
    """The configuration of the model; sizes that the arguments omit are taken from the weights.

    Raises:
        ModelError: the architecture cannot be loaded, or the arguments contradict the weights.
        KeyError: a tensor is missing.
        ValueError: the sizes are impossible.
    """
    architecture = arguments.get("model_arch", _architecture(weights))
    vocab_size, embed_dim = weights[WORDS].shape
    if architecture == "transformer":
        denoiser, rounding = _transformer(arguments, weights, folder), ROUNDING[arguments.get("logits_mode", 1)]
    elif architecture in ("1d-unet", "conv-unet"):
        denoiser, rounding = _unet(arguments, weights, folder), "dot"  # its head has no other logits_mode
        if architecture == "conv-unet":
            denoiser["row"] = _side(arguments)
    else:
        what = f"model_arch is {architecture!r}: only 'transformer', '1d-unet' and 'conv-unet' can be loaded."
        raise ModelError(what, where=str(folder / ARGUMENTS))
    sizes = {"in_channel": embed_dim, "vocab_size": vocab_size, "num_channels": weights["time_embed.0.weight"].shape[1]}
    for name, size in sizes.items():
        if arguments.get(name, size) != size:
            raise ModelError(f"{name} is {arguments[name]!r}, but the weights have {size}.", where=str(folder))
    settings = {
        "vocab_size": vocab_size,
        "length": _side(arguments) ** 2,
        "embed_dim": embed_dim,
        "architecture": architecture,
        "denoiser": denoiser,
        "schedule": arguments.get("noise_schedule", "linear"),
        "schedule_steps": arguments.get("diffusion_steps", 1000),
        "objective": "paper",
        "prediction": "x0" if arguments.get("predict_xstart", False) else "epsilon",
        "rounding": rounding,
        "self_conditioning": False,
    }
    return ModelConfig.model_validate(settings)


def _side(arguments: dict[str, Any]) -> int:
    return int(arguments.get("image_size", 8))  # the default of run_train.py


def _architecture(weights: Weights) -> str:
    if "position_embeddings.weight" in weights:
        return "transformer"
    first = weights.get("input_blocks.0.0.weight")
    return "trans-unet" if first is None else {3: "1d-unet", 4: "conv-unet"}.get(first.dim(), "unknown")


def _transformer(arguments: dict[str, Any], weights: Weights, folder: Path) -> dict[str, Any]:
    max_length, hidden = weights["position_embeddings.weight"].shape
    return {
        "hidden": hidden,
        "layers": len({name.split(".")[2] for name in weights if name.startswith("input_transformers.layer.")}),
        "heads": _heads(arguments, hidden, folder),
        "feedforward": weights["input_transformers.layer.0.intermediate.dense.weight"].shape[0],
        "dropout": arguments.get("dropout", 0.0),
        "norm_first": False,
        "max_length": max_length,
        "time_channels": weights["time_embed.0.weight"].shape[1],
    }


def _heads(arguments: dict[str, Any], hidden: int, folder: Path) -> int:
    """The number of attention heads of the BERT encoder, which the weights do not determine."""
    name = Path(str(arguments.get("config_name", ""))).name
    path = folder / name / "config.json"
    if not name or not path.is_file():
        return max(1, hidden // BERT_HEAD_WIDTH)
    config = read_object(path)
    for key, required in bert.FIXED.items():
        if config.get(key, required) != required:
            raise ModelError(f"{key} is {config[key]!r}; only {required!r} can be loaded.", where=str(path))
    return int(config.get("num_attention_heads", 12))


def _unet(arguments: dict[str, Any], weights: Weights, folder: Path) -> dict[str, Any]:
    channels = weights["time_embed.0.weight"].shape[1]
    if channels % GROUPS or channels == GROUPS:
        what = f"num_channels is {channels}: only larger multiples of {GROUPS} can be loaded, for the group norms."
        raise ModelError(what, where=str(folder))
    widths: list[list[int]] = [[]]
    attention: set[int] = set()
    index = 1
    while any(name.startswith(f"input_blocks.{index}.") for name in weights):
        if f"input_blocks.{index}.0.op.weight" in weights:
            widths.append([])
        else:
            widths[-1].append(weights[f"input_blocks.{index}.0.in_layers.2.weight"].shape[0])
        if f"input_blocks.{index}.1.qkv.weight" in weights:
            attention.add(len(widths) - 1)
        index += 1
    return {
        "channels": channels,
        "multipliers": [level[-1] // channels for level in widths if level],
        "residual_blocks": len(widths[0]),
        "attention_levels": sorted(attention),
        "heads": arguments.get("num_heads", 4),
        "dropout": arguments.get("dropout", 0.0),
    }


def write_arguments(config: ModelConfig) -> dict[str, Any]:
    """The arguments with which the original builds this model, and those that its scripts read from the file.

    Raises:
        ModelError: the original cannot build the model; the message says why.
    """
    sizes, side = config.denoiser, math.isqrt(config.length)
    _refuse_inexpressible(config, side)
    arguments: dict[str, Any] = {
        "model_arch": config.architecture,
        "training_mode": "e2e",
        "experiment_mode": "lm",
        "class_cond": False,
        "vocab_size": config.vocab_size,
        "in_channel": config.embed_dim,
        "out_channel": config.embed_dim,
        "image_size": side,
        "dropout": sizes.dropout,
        "logits_mode": {name: mode for mode, name in ROUNDING.items()}[config.rounding],
        "config_name": BERT_FOLDER,
        "diffusion_steps": config.schedule_steps,
        "noise_schedule": config.schedule,
        "predict_xstart": config.prediction == "x0",
        "rescale_timesteps": True,
        "rescale_learned_sigmas": True,
        "timestep_respacing": "",
        "use_kl": False,
        "learn_sigma": False,
        "sigma_small": False,
        "use_checkpoint": False,
        # These determine how the original's scripts read the vocabulary.
        "modality": "e2e-tgt",
        "experiment": "random",
        "padding_mode": "block",
        "model_name_or_path": "",
        "data_dir": "",
    }
    if isinstance(sizes, TransformerConfig):
        return arguments | {"num_channels": sizes.time_channels}
    assert isinstance(sizes, UNetConfig)
    return arguments | {
        "num_channels": sizes.channels,
        "num_res_blocks": sizes.residual_blocks,
        "num_heads": sizes.heads,
        "num_heads_upsample": -1,
        "attention_resolutions": ",".join(str(side // 2**level) for level in sorted(sizes.attention_levels)),
        "use_scale_shift_norm": True,
    }


def write_bert_config(config: TransformerConfig) -> dict[str, Any]:
    """``config.json`` of the encoder inside the original's transformer."""
    return {
        "model_type": "bert",
        **bert.sizes(config),
        **bert.FIXED,
        "max_position_embeddings": config.max_length,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
    }


def _refuse_inexpressible(config: ModelConfig, side: int) -> None:
    sizes = config.denoiser
    reasons = {
        "it trains words by rounding, not by cross-entropy (objective)": config.objective != "paper",
        "it has no self-conditioning": config.self_conditioning,
        "its labels and sources work differently": config.label is not None or config.source is not None,
        "it has discrete steps, and this model's time is continuous (schedule_steps)": config.schedule_steps is None,
        "it rounds by dot product or L2 only (rounding)": config.rounding not in ROUNDING.values(),
        f"its lengths are squares, and {config.length} is not": side**2 != config.length,
        "its transformer norms after each sublayer (norm_first)": isinstance(sizes, TransformerConfig)
        and sizes.norm_first,
        f"it cannot train {config.architecture!r} end to end": config.architecture == "trans-unet",
    }
    if isinstance(sizes, UNetConfig):
        multipliers = MULTIPLIERS.get(side, OTHER_MULTIPLIERS)
        reasons |= {
            f"its multipliers for this length are {multipliers}": sizes.multipliers != multipliers,
            f"its channels are multiples of {GROUPS}": sizes.channels % GROUPS > 0 or sizes.channels == GROUPS,
            "its U-Nets round by dot product only (rounding)": config.rounding != "dot",
            "its U-Nets have attention at one level at least (attention_levels)": not sizes.attention_levels,
            f"its image has rows of {side}": isinstance(sizes, FoldedUNetConfig) and sizes.row != side,
        }
    for reason, applies in reasons.items():
        if applies:
            raise ModelError(f"the original cannot express this model: {reason}.")
