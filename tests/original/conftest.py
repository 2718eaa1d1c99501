"""Checkpoints of the original, with weights from a formula: small, and the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dlmctl.checkpoint.original.names import HEAD, WORDS
from dlmctl.checkpoint.original.save import original_weights
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.text.tokenizer import WordTokenizer

BERT = {"hidden": 32, "layers": 2, "heads": 4, "feedforward": 48, "dropout": 0.1, "max_length": 70, "time_channels": 16}
DENOISERS: dict[str, dict[str, Any]] = {
    "transformer": {**BERT, "norm_first": False},
    "1d-unet": {"channels": 64, "residual_blocks": 1, "attention_levels": [0, 1]},
    "conv-unet": {"channels": 64, "residual_blocks": 1, "attention_levels": [0, 1]},
}


def config(architecture: str = "transformer", **changes: Any) -> ModelConfig:
    """Of a model that the original can express."""
    settings = {"vocab_size": 24, "embed_dim": 16, "schedule": "sqrt", "schedule_steps": 2000, "objective": "paper"}
    denoiser = {**DENOISERS.get(architecture, {}), **changes.pop("denoiser", {})}
    chosen = {"self_conditioning": False, "architecture": architecture, "denoiser": denoiser, **changes}
    return ModelConfig.model_validate({**settings, **chosen})


def formula(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values from the names' order alone; scales of norms are around one."""
    made = {}
    for number, name in enumerate(sorted(weights)):
        shape = weights[name].shape
        places = torch.arange(weights[name].numel(), dtype=torch.float64)
        values = 0.08 * torch.sin(12.9898 * places + 78.233 * number)
        made[name] = (values + (name.endswith("weight") and len(shape) == 1)).float().reshape(shape)
    made[HEAD] = made[WORDS]
    return {**made, **{name: tensor for name, tensor in weights.items() if not tensor.is_floating_point()}}


def write_checkpoint(folder: Path, weights: dict[str, Tensor], tokenizer: WordTokenizer, **arguments: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "training_args.json").write_text(json.dumps(arguments))
    tokenizer.save(folder)
    torch.save(weights, folder / "ema_0.9999_000100.pt")
    return folder


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Of a transformer."""
    return formula(original_weights(DiffusionLM(config())))


@pytest.fixture
def arguments() -> dict[str, Any]:
    """The least that a transformer of the original needs to be told."""
    return {"diffusion_steps": 2000, "noise_schedule": "sqrt", "predict_xstart": True}
