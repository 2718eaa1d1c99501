"""Decoder networks of transformers, built without values."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from torch import nn

from dlmctl.models.full_attention import FullAttention

# The prefix of the transformers network in ``FullAttention``.
NETWORK = "network."


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


def decoder(kind: Literal["llama", "qwen2", "qwen3"], sizes: Decoder) -> nn.Module:
    """``LlamaForCausalLM``, ``Qwen2ForCausalLM`` or ``Qwen3ForCausalLM``, with full attention.

    Raises:
        ValueError: the sizes are inconsistent.
    """
    import transformers

    if "head_dim" not in sizes and sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise ValueError("the number of heads does not divide the width")
    if sizes["num_attention_heads"] % sizes["num_key_value_heads"]:
        raise ValueError("the number of key and value heads does not divide that of the heads")
    settings = {**sizes, "use_cache": False, "attn_implementation": "sdpa"}
    if kind == "llama":
        config = transformers.LlamaConfig(**settings, attention_bias=False, mlp_bias=False)
        return FullAttention(transformers.LlamaForCausalLM(config))
    if kind == "qwen2":
        return FullAttention(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**settings)))
    return FullAttention(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings, attention_bias=False)))
