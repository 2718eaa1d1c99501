"""Mixtures of experts: LLaDA-MoE (Zhu et al. 2025), LLaDA 2 (Bie et al. 2025), RND1 (Chandrasegaran et al. 2025), SDAR.

Their networks are those of causal models that transformers has: Qwen3-MoE, and for LLaDA 2 GLM-4-MoE, which differs
from it in names alone. Files hold each expert by itself, transformers the experts of a layer as one tensor.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlmctl.checkpoint.vendors.block_decoders import SDAR, SdarSizes
from dlmctl.checkpoint.vendors.declared import Base, Block, Id, Rope, Vendor, Width
from dlmctl.checkpoint.vendors.decoder import BlockSizes, DecoderSizes, for_transformers, rename, settings_of, shape
from dlmctl.errors import ModelError
from dlmctl.models.decoder_network import DecoderNetwork

Experts = Annotated[int, Field(strict=True, gt=0, le=4096)]
Scale = Annotated[float, Field(gt=0, le=1e3)]
RotaryShare = Annotated[float, Field(gt=0, le=1)]
_EXPERT = re.compile(r"(.+\.mlp\.experts)\.(0|[1-9]\d{0,3})\.(gate|up|down)_proj\.weight")


class LladaMoeSizes(DecoderSizes):
    """``config.json`` of a LLaDA-MoE. Variants that its code supports but no checkpoint uses are refused."""

    intermediate_size: Width = Field(validation_alias="dense_intermediate_size")
    expert_intermediate_size: Width
    num_experts: Experts
    num_experts_per_tok: Experts
    norm_topk_prob: bool | None = False
    qk_layernorm: Literal[True] = True
    attention_bias: Literal[False] = False
    partial_rotary_factor: Literal[1] = 1
    routed_scaling_factor: Literal[1] = 1
    moe_router_score_function: Literal["softmax"] | None = None
    moe_router_enable_expert_bias: Literal[False] | None = None
    shared_expert_intermediate_size: Literal[0] | None = None
    moe_layer_freq: list[Literal[1]] | None = None
    clip_qkv: None = None


class QwenMoeSizes(DecoderSizes):
    """``config.json`` of a mixture that keeps the names of Qwen3-MoE in ``transformers``."""

    rope_theta: Base = 1e6
    attention_bias: Literal[False] = False
    moe_intermediate_size: Width
    num_experts: Experts
    num_experts_per_tok: Experts
    norm_topk_prob: bool = True
    decoder_sparse_step: Literal[1] = 1
    mlp_only_layers: Annotated[list[int], Field(max_length=0)] = []


class SdarMoeSizes(QwenMoeSizes, SdarSizes):
    """``config.json`` of a mixture of SDAR."""


class RndSizes(QwenMoeSizes):
    """``config.json`` of an RND1."""

    mask_token_id: Id | None = 151669
    rope_scaling: Literal[False] | None = None  # type: ignore[assignment]


class PartialRope(Rope):
    """``rope_parameters`` that may say which share of a head is rotated."""

    partial_rotary_factor: RotaryShare | None = None  # type: ignore[assignment]


class Llada2Sizes(BlockSizes):
    """``config.json`` of a LLaDA 2. Variants that its code supports but no checkpoint uses are refused."""

    block_size: Block = 32
    rope_theta: Base = 6e5
    moe_intermediate_size: Width
    num_experts: Experts
    num_experts_per_tok: Experts
    num_shared_experts: Experts = 1
    n_group: Experts = 1
    topk_group: Experts = 1
    routed_scaling_factor: Scale = 1.0
    first_k_dense_replace: Annotated[int, Field(strict=True, ge=0, le=128)] = 0
    partial_rotary_factor: RotaryShare = 0.5
    rope_parameters: PartialRope | None = None
    use_qk_norm: bool = True
    use_qkv_bias: bool = False
    use_bias: Literal[False] = False
    norm_head: Literal[False] = False
    score_function: Literal["sigmoid"] = "sigmoid"


def llada_moe_network(sizes: LladaMoeSizes) -> nn.Module:
    """``Qwen3MoeForCausalLM`` of these sizes."""
    return _qwen3_moe(sizes, sizes.expert_intermediate_size, bool(sizes.norm_topk_prob))


def qwen_moe_network(sizes: QwenMoeSizes) -> nn.Module:
    """``Qwen3MoeForCausalLM`` of these sizes."""
    return _qwen3_moe(sizes, sizes.moe_intermediate_size, sizes.norm_topk_prob)


def _qwen3_moe(sizes: LladaMoeSizes | QwenMoeSizes, inner: int, normed: bool) -> nn.Module:
    import transformers

    if sizes.num_experts_per_tok > sizes.num_experts:
        raise ValueError("there are fewer experts than each token takes")
    config = transformers.Qwen3MoeConfig(
        **for_transformers(settings_of(sizes)),
        attention_bias=False,
        experts_implementation=_experts_by(sizes.hidden_size, inner),
        moe_intermediate_size=inner,
        num_experts=sizes.num_experts,
        num_experts_per_tok=sizes.num_experts_per_tok,
        norm_topk_prob=normed,
        decoder_sparse_step=1,
    )
    return DecoderNetwork(transformers.Qwen3MoeForCausalLM(config))


def llada2_network(sizes: Llada2Sizes) -> nn.Module:
    """``Glm4MoeForCausalLM`` of these sizes."""
    import transformers

    in_group, rest = divmod(sizes.num_experts, sizes.n_group)
    if rest or in_group < 2:
        raise ValueError("the experts cannot be split into groups of this number")
    if sizes.topk_group > sizes.n_group or sizes.num_experts_per_tok > in_group * sizes.topk_group:
        raise ValueError("there are fewer experts than each token takes")
    config = transformers.Glm4MoeConfig(
        **for_transformers(settings_of(sizes)),
        partial_rotary_factor=(sizes.rope_parameters or PartialRope()).partial_rotary_factor
        or sizes.partial_rotary_factor,
        attention_bias=sizes.use_qkv_bias,
        use_qk_norm=sizes.use_qk_norm,
        experts_implementation=_experts_by(sizes.hidden_size, sizes.moe_intermediate_size),
        moe_intermediate_size=sizes.moe_intermediate_size,
        n_routed_experts=sizes.num_experts,
        num_experts_per_tok=sizes.num_experts_per_tok,
        n_shared_experts=sizes.num_shared_experts,
        n_group=sizes.n_group,
        topk_group=sizes.topk_group,
        routed_scaling_factor=sizes.routed_scaling_factor,
        first_k_dense_replace=sizes.first_k_dense_replace,
        # Its authors' code leaves the weight of a single expert as it is.
        norm_topk_prob=sizes.num_experts_per_tok > 1,
        num_mtp_layers=0,
    )
    return DecoderNetwork(transformers.Glm4MoeForCausalLM(config))


def _experts_by(*widths: int) -> str | None:
    """How transformers computes the experts; None for its own choice.

    That multiplies all at once, for which a row of a matrix must have a multiple of 16 bytes.
    """
    return "eager" if any(width % 8 for width in widths) else None


_LLADA2_NAMES = {
    ".word_embeddings.": ".embed_tokens.",
    ".attention.dense.": ".self_attn.o_proj.",
    ".attention.query_layernorm.": ".self_attn.q_norm.",
    ".attention.key_layernorm.": ".self_attn.k_norm.",
    ".attention.": ".self_attn.",
    ".mlp.gate.expert_bias": ".mlp.gate.e_score_correction_bias",
}


def rename_llada2(name: str) -> str | None:
    """The name of a tensor in ``Glm4MoeForCausalLM``; fused queries, keys and values keep theirs."""
    for theirs, ours in _LLADA2_NAMES.items():
        if theirs in name:
            return name.replace(theirs, ours)
    return name


def convert_llada2(state: dict[str, Tensor], sizes: Llada2Sizes) -> dict[str, Tensor]:
    """The tensors with the experts of a layer as one, and queries, keys and values apart."""
    heads, groups = sizes.num_attention_heads, sizes.num_key_value_heads or sizes.num_attention_heads
    converted = {}
    for name, tensor in merged_experts(state, sizes).items():
        before, fused, kind = name.partition(".query_key_value.")
        if not fused or not tensor.dim() or tensor.shape[0] % (heads + 2 * groups):
            converted[name] = tensor
            continue
        width = tensor.shape[0] // (heads + 2 * groups)
        parts = tensor.split([heads * width, groups * width, groups * width])
        converted |= {f"{before}.{part}_proj.{kind}": rows for part, rows in zip("qkv", parts, strict=True)}
    return converted


def merged_experts(state: dict[str, Tensor], sizes: LladaMoeSizes | QwenMoeSizes | Llada2Sizes) -> dict[str, Tensor]:
    """The tensors with the experts of a layer as one; empties ``state``, so that few are in memory twice.

    Raises:
        ModelError: the tensor of an expert is missing, is no matrix of the shape that the others have, or is one too
            many.
    """
    merged: dict[str, Tensor] = {}
    layers: dict[str, dict[tuple[str, int], Tensor]] = {}
    while state:
        name, tensor = state.popitem()
        match = _EXPERT.fullmatch(name)
        if match is None:
            merged[name] = tensor
        else:
            layers.setdefault(match[1], {})[match[3], int(match[2])] = tensor
    while layers:
        layer, tensors = layers.popitem()
        down, up, gate = (_stacked(tensors, layer, part, sizes.num_experts) for part in ("down", "up", "gate"))
        if tensors:
            part, number = next(iter(tensors))
            what = f"the tensor '{layer}.{number}.{part}_proj.weight' has no place among {sizes.num_experts} experts."
            raise ModelError(what)
        if gate.shape != up.shape:
            raise ModelError(f"the tensors '{layer}.0.gate_proj.weight' and '...up_proj.weight' differ in shape.")
        merged |= {f"{layer}.down_proj": down, f"{layer}.gate_up_proj": torch.cat([gate, up], 1)}
    return merged


def _stacked(tensors: dict[tuple[str, int], Tensor], layer: str, part: str, count: int) -> Tensor:
    """The weights ``[experts, out, in]`` of one matrix of all experts of a layer."""
    missing = next((number for number in range(count) if (part, number) not in tensors), None)
    if missing is not None:
        raise ModelError(f"the tensor '{layer}.{missing}.{part}_proj.weight' is missing.")
    rows = [tensors.pop((part, number)) for number in range(count)]
    if rows[0].dim() != 2:
        raise ModelError(f"the tensor '{layer}.0.{part}_proj.weight' is not a matrix.")
    other = next((number for number, row in enumerate(rows) if row.shape != rows[0].shape), None)
    if other is not None:
        raise ModelError(f"the tensor '{layer}.{other}.{part}_proj.weight' has another shape than that of expert 0.")
    return torch.stack(rows)


LLADA_MOE = Vendor(
    "LLaDA-MoE",
    LladaMoeSizes,
    shape,
    llada_moe_network,
    rename,
    predicts="same",
    sampler="low_confidence",
    mask_token="<|mask|>",
    convert=merged_experts,
)
SDAR_MOE = SDAR._replace(sizes=SdarMoeSizes, network=qwen_moe_network, convert=merged_experts)
RND1 = Vendor(
    "RND1",
    RndSizes,
    shape,
    qwen_moe_network,
    rename,
    predicts="next",
    sampler="entropy",
    splitting="qwen2",
    convert=merged_experts,
)
LLADA2 = Vendor(
    "LLaDA 2",
    Llada2Sizes,
    shape,
    llada2_network,
    rename_llada2,
    predicts="same",
    sampler="low_confidence",
    mask_token="<|mask|>",
    convert=convert_llada2,
)
