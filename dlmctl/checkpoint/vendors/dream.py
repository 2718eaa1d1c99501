"""Dream (Ye et al. 2025) and DiffuCoder (Gong et al. 2025): Qwen2 with full attention, predicting the next position.

They were adapted from a causal model and keep its shift: the scores at a position are for the next token.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from dlmctl.checkpoint.vendors.declared import (
    Base,
    Epsilon,
    Heads,
    Id,
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


class DreamSizes(Sizes):
    """``config.json`` of a Dream model."""

    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Heads
    num_key_value_heads: Heads | None = None
    vocab_size: Rows
    max_position_embeddings: Positions
    rms_norm_eps: Epsilon = 1e-6
    rope_theta: Base = 1e6
    tie_word_embeddings: bool = False
    mask_token_id: Id | None = None
    hidden_act: Literal["silu"] = "silu"
    use_sliding_window: Literal[False] = False
    rope_scaling: None = None
    rope_parameters: Rope | None = None


def shape(sizes: DreamSizes) -> Shape:
    """The sizes that the toolkit needs."""
    return Shape(sizes.vocab_size, sizes.hidden_size, sizes.max_position_embeddings, sizes.mask_token_id)


def network(sizes: DreamSizes) -> nn.Module:
    """``Qwen2ForCausalLM`` of these sizes, with full attention."""
    return decoder(
        "qwen2",
        Decoder(
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
        ),
    )


def rename(name: str) -> str | None:
    """The name of a tensor in the network; checkpoints use the names of ``Qwen2ForCausalLM``."""
    return NETWORK + name


DREAM = Vendor("Dream", DreamSizes, shape, network, rename, predicts="next", sampler="entropy", splitting="qwen2")
