"""The mapping between our tensor names and those of the original, for import and export."""

from __future__ import annotations

from collections.abc import Iterable

from dlmctl.checkpoint import bert
from dlmctl.diffusion.model import ModelConfig
from dlmctl.models.transformer import TransformerConfig
from dlmctl.models.unet import UNetConfig

WORDS, HEAD = "word_embedding.weight", "lm_head.weight"

_TRANSFORMER = {
    "encoder.time.0": "time_embed.0",
    "encoder.time.2": "time_embed.2",
    "encoder.input.0": "input_up_proj.0",
    "encoder.input.2": "input_up_proj.2",
    "encoder.positions": "position_embeddings",
    "encoder.input_norm": "LayerNorm",
    "output.0": "output_down_proj.0",
    "output.2": "output_down_proj.2",
}
_UNET = {
    "time.0": "time_embed.0",
    "time.2": "time_embed.2",
    "input": "input_blocks.0.0",
    "output.0": "out.0",
    "output.2": "out.2",
}
_RESIDUAL = {
    "first_norm": "in_layers.0",
    "first": "in_layers.2",
    "time": "emb_layers.1",
    "second_norm": "out_layers.0",
    "second": "out_layers.3",
    "shortcut": "skip_connection",
}
_ATTENTION = {"norm": "norm", "qkv": "qkv", "output": "proj_out"}


def original_names(config: ModelConfig, our_names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The original's names for each of our tensors: several where ours joins them along the first axis.

    Args:
        our_names: the names in the state of a ``DiffusionLM`` of this configuration.

    Raises:
        ValueError: the original has no such architecture.
    """
    sizes = config.denoiser
    names: dict[str, tuple[str, ...]] = {"embedding.weight": (WORDS,), "rounding_bias": ("lm_head.bias",)}
    if isinstance(sizes, TransformerConfig):
        names |= bert.encoder_tensors(sizes.layers, "input_transformers.")
    for name in our_names:
        if name not in names:
            layer, kind = name.removeprefix("denoiser.").rsplit(".", 1)
            names[name] = (f"{_layer(layer, sizes)}.{kind}",)
    return names


def _layer(layer: str, sizes: object) -> str:
    if isinstance(sizes, TransformerConfig):
        return _TRANSFORMER[layer]
    if isinstance(sizes, UNetConfig):
        return _UNET[layer] if layer in _UNET else _unet_block_layer(layer, sizes)
    raise ValueError("the original has no such architecture")


def _unet_block_layer(layer: str, sizes: UNetConfig) -> str:
    """A layer of a U-Net block. The original numbers the input blocks, from the first convolution, and the output
    blocks."""
    blocks, last = sizes.residual_blocks, len(sizes.multipliers) - 1
    match layer.split(".")[1:]:
        case ["down", level, block, *path]:
            return f"input_blocks.{1 + int(level) * (blocks + 1) + int(block)}.{_residual_layer(path, 0)}"
        case ["shrink", level]:
            return f"input_blocks.{(int(level) + 1) * (blocks + 1)}.0.op"
        case ["middle", block, *path]:
            return f"middle_block.{_residual_layer(path, 2 * int(block))}"
        case ["up", stage, block, *path]:
            return f"output_blocks.{int(stage) * (blocks + 1) + int(block)}.{_residual_layer(path, 0)}"
        case ["grow", stage, _]:
            index = 2 if last - int(stage) in sizes.attention_levels else 1
            return f"output_blocks.{int(stage) * (blocks + 1) + blocks}.{index}.conv"
    raise ValueError(f"no layer {layer!r}")


def _residual_layer(path: list[str], index: int) -> str:
    """A layer of the residual block at ``index`` of its module, or of its attention, which follows it."""
    if path[0] == "attention":
        return f"{index + 1}.{_ATTENTION[path[1]]}"
    return f"{index}.{_RESIDUAL[path[0]]}"
