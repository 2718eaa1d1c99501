"""Decoder networks of transformers, built without values."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from torch import nn

from dlmctl.checkpoint.vendors.declared import (
    Base,
    Block,
    Epsilon,
    Heads,
    Id,
    Layers,
    Positions,
    Rope,
    Rows,
    Shape,
    Sizes,
    Width,
)
from dlmctl.models.decoder_network import DecoderNetwork

Kind = Literal["llama", "qwen2", "qwen3"]


class Decoder(TypedDict):
    """Sizes, by their names in transformers."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    head_dim: NotRequired[int]


class DecoderSizes(Sizes):
    """``config.json`` of a checkpoint that keeps the names of Llama and Qwen in ``transformers``."""

    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Heads
    num_key_value_heads: Heads | None = None
    head_dim: Width | None = None
    vocab_size: Rows
    max_position_embeddings: Positions
    rms_norm_eps: Epsilon = 1e-6
    rope_theta: Base = 1e4
    tie_word_embeddings: bool = False
    mask_token_id: Id | None = None
    hidden_act: Literal["silu"] = "silu"
    use_sliding_window: Literal[False] = False
    rope_scaling: None = None
    rope_parameters: Rope | None = None


class BlockSizes(DecoderSizes):
    """The same of a checkpoint that may attend by blocks."""

    block_size: Block | None = None


class UnbiasedSizes(BlockSizes):
    """The same of a checkpoint whose matrices have no biases."""

    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False


def shape(sizes: DecoderSizes) -> Shape:
    """The sizes that the toolkit needs."""
    block = sizes.block_size if isinstance(sizes, BlockSizes) else None
    return Shape(sizes.vocab_size, sizes.hidden_size, sizes.max_position_embeddings, sizes.mask_token_id, block)


def network(kind: Kind, sizes: DecoderSizes) -> nn.Module:
    """The network of these sizes, see ``decoder``."""
    return decoder(kind, settings_of(sizes))


def settings_of(sizes: DecoderSizes) -> Decoder:
    """The sizes by their names in transformers."""
    settings = Decoder(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.num_hidden_layers,
        num_attention_heads=sizes.num_attention_heads,
        num_key_value_heads=sizes.num_key_value_heads or sizes.num_attention_heads,
        max_position_embeddings=sizes.max_position_embeddings,
        rms_norm_eps=sizes.rms_norm_eps,
        rope_theta=(sizes.rope_parameters or Rope()).base(sizes.rope_theta),
        tie_word_embeddings=sizes.tie_word_embeddings,
    )
    if sizes.head_dim is not None:
        settings["head_dim"] = sizes.head_dim
    return settings


def rename(name: str) -> str | None:
    """The name of a tensor in ``transformers``, which these checkpoints use as it is."""
    return name


def decoder(kind: Kind, sizes: Decoder) -> nn.Module:
    """``LlamaForCausalLM``, ``Qwen2ForCausalLM`` or ``Qwen3ForCausalLM``, without their causal masks.

    Raises:
        ValueError: the sizes are inconsistent.
    """
    import transformers

    settings = for_transformers(sizes)
    if kind == "llama":
        config = transformers.LlamaConfig(**settings, attention_bias=False, mlp_bias=False)
        return DecoderNetwork(transformers.LlamaForCausalLM(config))
    if kind == "qwen2":
        return DecoderNetwork(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**settings)))
    return DecoderNetwork(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings, attention_bias=False)))


def for_transformers(sizes: Decoder) -> dict[str, Any]:
    """The settings of a configuration of transformers.

    Raises:
        ValueError: the sizes are inconsistent.
    """
    if "head_dim" not in sizes and sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise ValueError("the number of heads does not divide the width")
    if sizes["num_attention_heads"] % sizes["num_key_value_heads"]:
        raise ValueError("the number of key and value heads does not divide that of the heads")
    return {**sizes, "use_cache": False, "attn_implementation": "sdpa"}
