"""LLaDA (Nie et al. 2025): Llama blocks with full attention, each position predicting its own token.

Its weights have the names of OLMo, and correspond to those of ``LlamaForCausalLM``.
"""

from __future__ import annotations

import re
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
from dlmctl.checkpoint.vendors.decoder import Decoder, decoder

_ROOT = "model.transformer."
_TOP_LEVEL_NAMES = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
_BLOCK = re.compile(r"blocks\.(\d{1,4})\.(\w+)\.weight")


class LladaSizes(Sizes):
    """``config.json`` of a LLaDA model. Variants that its code supports but no checkpoint uses are refused."""

    d_model: Width
    n_layers: Layers
    n_heads: Heads
    n_kv_heads: Heads | None = None
    mlp_hidden_size: Width | None = None
    mlp_ratio: Heads = 4
    vocab_size: Rows
    embedding_size: Rows | None = None
    max_sequence_length: Positions
    rms_norm_eps: Epsilon = 1e-5
    rope_theta: Base = 1e4
    weight_tying: bool = False
    mask_token_id: Id | None = None
    block_type: Literal["llama"] = "llama"
    activation_type: Literal["silu"] = "silu"
    layer_norm_type: Literal["rms"] = "rms"
    rope: Literal[True] = True
    alibi: Literal[False] = False
    include_bias: Literal[False] = False
    include_qkv_bias: Literal[False] | None = None
    attention_layer_norm: Literal[False] = False
    input_emb_norm: Literal[False] = False
    scale_logits: Literal[False] = False
    clip_qkv: None = None
    rope_scaling: None = None
    rope_parameters: Rope | None = None


def shape(sizes: LladaSizes) -> Shape:
    """The sizes that the toolkit needs."""
    rows = sizes.embedding_size or sizes.vocab_size
    return Shape(rows, sizes.d_model, sizes.max_sequence_length, sizes.mask_token_id)


def network(sizes: LladaSizes) -> nn.Module:
    """``LlamaForCausalLM`` of these sizes, with full attention."""
    return decoder(
        "llama",
        Decoder(
            vocab_size=sizes.embedding_size or sizes.vocab_size,
            hidden_size=sizes.d_model,
            intermediate_size=sizes.mlp_hidden_size or sizes.mlp_ratio * sizes.d_model,
            num_hidden_layers=sizes.n_layers,
            num_attention_heads=sizes.n_heads,
            num_key_value_heads=sizes.n_kv_heads or sizes.n_heads,
            max_position_embeddings=sizes.max_sequence_length,
            rms_norm_eps=sizes.rms_norm_eps,
            rope_theta=(sizes.rope_parameters or Rope()).base(sizes.rope_theta),
            tie_word_embeddings=sizes.weight_tying,
        ),
    )


def rename(name: str) -> str | None:
    """The name of a tensor in ``LlamaForCausalLM``; names that LLaDA does not use are kept."""
    inner = name.removeprefix(_ROOT)
    match = _BLOCK.fullmatch(inner)
    if match and match[2] in _BLOCK_NAMES:
        return f"model.layers.{match[1]}.{_BLOCK_NAMES[match[2]]}.weight"
    part = inner.removesuffix(".weight")
    return f"{_TOP_LEVEL_NAMES[part]}.weight" if part in _TOP_LEVEL_NAMES else name


LLADA = Vendor("LLaDA", LladaSizes, shape, network, rename, predicts="same", sampler="low_confidence")
