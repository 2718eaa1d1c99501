"""A2D (dLLM, Zhou et al. 2025): Llama, Qwen2 and Qwen3 with full attention, trained on as masked diffusion models.

Unlike Dream they predict the token of their own position. Their MASK is a token that was added to the tokenizer.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from dlmctl.checkpoint.vendors.declared import (
    Base,
    Epsilon,
    Heads,
    Layers,
    Positions,
    Rope,
    Rows,
    Shape,
    Sizes,
    Vendor,
    Width,
)
from dlmctl.checkpoint.vendors.decoder import NETWORK, Decoder, decoder

Kind = Literal["llama", "qwen2", "qwen3"]


class A2DSizes(Sizes):
    """``config.json`` of an A2D model."""

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
    hidden_act: Literal["silu"] = "silu"
    use_sliding_window: Literal[False] = False
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    rope_scaling: None = None
    rope_parameters: Rope | None = None


def shape(sizes: A2DSizes) -> Shape:
    """The sizes that the toolkit needs."""
    return Shape(sizes.vocab_size, sizes.hidden_size, sizes.max_position_embeddings, None)


def network(kind: Kind, sizes: A2DSizes) -> nn.Module:
    """``LlamaForCausalLM``, ``Qwen2ForCausalLM`` or ``Qwen3ForCausalLM`` of these sizes, with full attention."""
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
    return decoder(kind, settings)


def rename(name: str) -> str | None:
    """The name of a tensor in the network; checkpoints use those of the class in ``transformers``."""
    return NETWORK + name


KINDS: tuple[Kind, ...] = ("llama", "qwen2", "qwen3")
# By model_type.
A2D = {
    f"a2d-{kind}": Vendor(
        "A2D",
        A2DSizes,
        shape,
        partial(network, kind),
        rename,
        predicts="same",
        sampler="low_confidence",
        splitting="gpt2" if kind == "llama" else "qwen2",
    )
    for kind in KINDS
}
