"""Qwen with attention by blocks: SDAR (Cheng et al. 2025) and Fast-dLLM v2 (Wu et al. 2025).

Both were made from causal models by training with block diffusion (Arriola et al. 2025). SDAR predicts the token of its
own position, Fast-dLLM v2 keeps the shift of a causal model.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from dlmctl.checkpoint.vendors.declared import Base, Block, Vendor
from dlmctl.checkpoint.vendors.decoder import BlockSizes, network, rename, shape


class SdarSizes(BlockSizes):
    """``config.json`` of an SDAR model. Those with blocks of other sizes (b8 to b64 in their names) may not say so."""

    block_size: Block = 4
    rope_theta: Base = 1e6
    attention_bias: Literal[False] = False


class FastSizes(BlockSizes):
    """``config.json`` of a Fast-dLLM v2 model."""

    block_size: Block = Field(default=32, validation_alias="bd_size")
    rope_theta: Base = 1e6


SDAR = Vendor(
    "SDAR",
    SdarSizes,
    shape,
    partial(network, "qwen3"),
    rename,
    predicts="same",
    sampler="low_confidence",
    splitting="qwen2",
    mask_token="<|MASK|>",
)
FAST_DLLM = Vendor(
    "Fast-dLLM v2",
    FastSizes,
    shape,
    partial(network, "qwen2"),
    rename,
    predicts="next",
    sampler="low_confidence",
    splitting="qwen2",
    mask_token="|<MASK>|",
)
