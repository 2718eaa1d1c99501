"""Tiny random checkpoints of DiffuGPT and DiffuLLaMA in their authors' formats, and a plain GPT-2."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.checkpoint.tiny_vendors import (
    DREAM_NAMES,
    HEADS,
    INNER,
    LAYERS,
    WIDTH,
    block_tensors,
    bytes_tokenizer,
    normal,
    write,
)

END = "<|endoftext|>"
# MASK is a word of the vocabulary, as of DiffuGPT-S and DiffuLLaMA.
MASK = "sinks"


def write_diffugpt(folder: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A DiffuGPT: causal masks among its tensors, and one more row than tokens."""
    core = bytes_tokenizer([END])
    rows = len(core.get_vocab()) + 1
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": rows,
        "n_positions": 64,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        **changes,
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (rows, WIDTH),
        "denoise_model.wpe.weight": (64, WIDTH),
        "denoise_model.ln_f.weight": (WIDTH,),
        "denoise_model.ln_f.bias": (WIDTH,),
    }
    masks = {}
    for at in range(LAYERS):
        layer = f"denoise_model.h.{at}."
        shapes |= {f"{layer}{norm}.{part}": (WIDTH,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
        sizes = {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH)}
        sizes |= {"mlp.c_fc": (WIDTH, 4 * WIDTH), "mlp.c_proj": (4 * WIDTH, WIDTH)}
        for name, (inputs, outputs) in sizes.items():
            shapes |= {f"{layer}{name}.weight": (inputs, outputs), f"{layer}{name}.bias": (outputs,)}
        masks[f"{layer}attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    state = {name: normal(*shape, seed=at, dtype=dtype) for at, (name, shape) in enumerate(shapes.items())}
    return write(folder, config, state | masks, core, bos_token=END, eos_token=END, unk_token=END, mask_token=MASK)


def write_diffullama(folder: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A DiffuLLaMA: a Llama in everything but what it was trained for."""
    core = bytes_tokenizer([END])
    rows = len(core.get_vocab())
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": rows,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        **changes,
    }
    state = {
        "model.embed_tokens.weight": normal(rows, WIDTH, std=1.0, seed=1, dtype=dtype),
        "model.norm.weight": 1 + normal(WIDTH, seed=2, dtype=dtype),
        "lm_head.weight": normal(rows, WIDTH, seed=3, dtype=dtype),
    }
    for at in range(LAYERS):
        state |= block_tensors(f"model.layers.{at}.", DREAM_NAMES, 100 + at, HEADS, dtype)
    return write(folder, config, state, core, bos_token=END, eos_token=END, mask_token=MASK)


def plain_gpt2(state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Scores ``[B, L, rows]`` of a DiffuGPT, from the tensors of its file, not shifted."""

    def normed(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * state[f"denoise_model.{name}.weight"] + state[f"denoise_model.{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"denoise_model.{name}.weight"] + state[f"denoise_model.{name}.bias"]

    x = state["embed_tokens.weight"][ids] + state["denoise_model.wpe.weight"][: ids.shape[1]]
    for at in range(LAYERS):
        parts = linear(normed(x, f"h.{at}.ln_1"), f"h.{at}.attn.c_attn").chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = (q @ k.mT / math.sqrt(WIDTH // HEADS)).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"h.{at}.attn.c_proj")
        h = linear(normed(x, f"h.{at}.ln_2"), f"h.{at}.mlp.c_fc")
        h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + linear(h, f"h.{at}.mlp.c_proj")
    return normed(x, "ln_f") @ state["embed_tokens.weight"].T
