"""DiffusionGemma, loaded with its class in transformers; its vision tower is loaded but not used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from dlmctl.checkpoint.quiet_transformers import without_progress_bars
from dlmctl.checkpoint.vendors.declared import Epsilon, Heads, Layers, Positions, Rows, Sizes, Width
from dlmctl.diffusion.canvas import CanvasLM, CanvasSettings
from dlmctl.diffusion.tokens import TokenConfig
from dlmctl.errors import ModelError, first_validation_error, short_message
from dlmctl.text.checkpoint_tokenizer import CheckpointTokenizer, read_tokenizer
from dlmctl.text.files import read_object, require_file

KIND = "diffusion_gemma"


class _Text(Sizes):
    vocab_size: Rows
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Heads
    num_key_value_heads: Heads
    head_dim: Width
    max_position_embeddings: Positions
    num_experts: Annotated[int, Field(strict=True, gt=0, le=1024)] | None = None
    moe_intermediate_size: Width | None = None
    rms_norm_eps: Epsilon = 1e-6


class _Vision(Sizes):
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    position_embedding_size: Width = 10 * 1024


class GemmaSizes(Sizes):
    """``config.json`` of a DiffusionGemma model."""

    text_config: _Text
    vision_config: _Vision
    canvas_length: Annotated[int, Field(strict=True, gt=0, le=65_536)] = 256


class _Sampling(Sizes):
    entropy_bound: float = Field(default=0.1, gt=0)


class _Generation(Sizes):
    """The settings in ``generation_config.json`` for refining a canvas."""

    max_denoising_steps: int | None = Field(default=None, gt=0, le=100_000)
    t_min: float | None = Field(default=None, gt=0)
    t_max: float | None = Field(default=None, gt=0)
    confidence_threshold: float | None = Field(default=None, gt=0)
    sampler_config: _Sampling | None = None


def load_gemma(folder: Path, settings: Mapping[str, Any]) -> tuple[CanvasLM, CheckpointTokenizer]:
    """A DiffusionGemma model and its tokenizer.

    Raises:
        ModelError: the installed transformers does not have the class, or a file is missing, damaged or of another
            checkpoint.
    """
    sizes = _validated(GemmaSizes, settings, folder / "config.json")
    tokenizer = read_tokenizer(folder, "gpt2", sizes.text_config.vocab_size)
    if len(tokenizer) > sizes.text_config.vocab_size:
        what = f"the tokenizer has {len(tokenizer)} ids, the model {sizes.text_config.vocab_size} rows."
        raise ModelError(what, where=str(folder), remedy="They belong to different checkpoints.")
    network = _network(folder)
    config = TokenConfig(
        kind="DiffusionGemma",
        vocab_size=len(tokenizer),
        length=sizes.text_config.max_position_embeddings,
        embed_dim=sizes.text_config.hidden_size,
        mask_id=tokenizer.mask_id,
        predicts="same",
        sampler="entropy_bound",
    )
    return CanvasLM(config, network, _canvas(folder, sizes.canvas_length)).eval().requires_grad_(False), tokenizer


def _validated(kind: Any, settings: Mapping[str, Any], path: Path) -> Any:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ModelError(first_validation_error(error), where=str(path)) from None


def _network(folder: Path) -> Any:
    try:
        from transformers import DiffusionGemmaForBlockDiffusion
    except ImportError:
        what = "is a DiffusionGemma model, which the installed version of transformers does not support."
        raise ModelError(what, where=str(folder), remedy="pip install -U transformers") from None
    for path in folder.glob("*"):
        if not path.is_dir():
            require_file(path)  # transformers would wait for a named pipe
    try:
        with without_progress_bars():
            network, loading_info = DiffusionGemmaForBlockDiffusion.from_pretrained(
                str(folder), dtype="auto", use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"its weights cannot be read: {short_message(error)}.", where=str(folder)) from None
    problems = {"is missing": loading_info["missing_keys"], "has another shape": loading_info["mismatched_keys"]}
    for problem, names in problems.items():
        for name in names:
            raise ModelError(f"the tensor {str(name)!r} {problem}.", where=str(folder))
    return network


def _canvas(folder: Path, positions: int) -> CanvasSettings:
    path = folder / "generation_config.json"
    generation = _validated(_Generation, read_object(path) if os.path.lexists(path) else {}, path)
    settings = {
        "steps": generation.max_denoising_steps,
        "coldest": generation.t_min,
        "warmest": generation.t_max,
        "confidence": generation.confidence_threshold,
        "entropy_bound": None if generation.sampler_config is None else generation.sampler_config.entropy_bound,
    }
    return CanvasSettings(positions, **{name: value for name, value in settings.items() if value is not None})
