"""Which tensors of the original each of our tensors is, for reading and writing alike."""

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


def their_names(config: ModelConfig, ours: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """For the name of each of our tensors, the original's: several where ours is theirs joined along the first axis.

    Args:
        ours: the names in the state of a ``DiffusionLM`` of this configuration.

    Raises:
        ValueError: the original has no such architecture.
    """
    sizes = config.denoiser
    names: dict[str, tuple[str, ...]] = {"embedding.weight": (WORDS,), "rounding_bias": ("lm_head.bias",)}
    if isinstance(sizes, TransformerConfig):
        names |= bert.encoder_tensors(sizes.layers, "input_transformers.")
    for name in ours:
        if name not in names:
            layer, kind = name.removeprefix("denoiser.").rsplit(".", 1)
            names[name] = (f"{_layer(layer, sizes)}.{kind}",)
    return names


def _layer(layer: str, sizes: object) -> str:
    if isinstance(sizes, TransformerConfig):
        return _TRANSFORMER[layer]
    if isinstance(sizes, UNetConfig):
        return _UNET[layer] if layer in _UNET else _layer_of_the_u(layer, sizes)
    raise ValueError("the original has no such architecture")


def _layer_of_the_u(layer: str, sizes: UNetConfig) -> str:
    """The original counts the modules of the way down, the first convolution included, and those of the way up."""
    blocks, last = sizes.residual_blocks, len(sizes.multipliers) - 1
    match layer.split(".")[1:]:
        case ["down", level, block, *inside]:
            return f"input_blocks.{1 + int(level) * (blocks + 1) + int(block)}.{_inside(inside, 0)}"
        case ["shrink", level]:
            return f"input_blocks.{(int(level) + 1) * (blocks + 1)}.0.op"
        case ["middle", block, *inside]:
            return f"middle_block.{_inside(inside, 2 * int(block))}"
        case ["up", stage, block, *inside]:
            return f"output_blocks.{int(stage) * (blocks + 1) + int(block)}.{_inside(inside, 0)}"
        case ["grow", stage, _]:
            place = 2 if last - int(stage) in sizes.attention_levels else 1
            return f"output_blocks.{int(stage) * (blocks + 1) + blocks}.{place}.conv"
    raise ValueError(f"no layer {layer!r}")


def _inside(layer: list[str], place: int) -> str:
    """A layer of a residual block that is at ``place`` in its module; its attention comes next."""
    if layer[0] == "attention":
        return f"{place + 1}.{_ATTENTION[layer[1]]}"
    return f"{place}.{_RESIDUAL[layer[0]]}"
