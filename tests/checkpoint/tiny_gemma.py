"""A DiffusionGemma model of transformers that is small enough for tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tests.checkpoint.tiny_vendors import bytes_tokenizer

SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
IMAGE = ["<image>", "<begin image>", "<end image>"]


def tiny_gemma(canvas: int = 8) -> tuple[Any, PreTrainedTokenizerFast]:
    """The model, with random weights, and its tokenizer. Skips the test where transformers is too old for it."""
    pytest.importorskip("transformers.models.diffusion_gemma")
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
    from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaTextConfig
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_tokenizer([*SPECIAL.values(), *IMAGE]), **SPECIAL)
    image, begin, end = tokenizer.convert_tokens_to_ids(IMAGE)
    text = DiffusionGemmaTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=256,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"],
        num_experts=2,
        top_k_experts=1,
        moe_intermediate_size=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # By default the part that sees makes 167 million weights.
    vision = Gemma4VisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        position_embedding_size=16,
    )
    config = DiffusionGemmaConfig(
        text_config=text,
        vision_config=vision,
        canvas_length=canvas,
        image_token_id=image,
        boi_token_id=begin,
        eoi_token_id=end,
    )
    torch.manual_seed(0)
    return DiffusionGemmaForBlockDiffusion(config).eval(), tokenizer
