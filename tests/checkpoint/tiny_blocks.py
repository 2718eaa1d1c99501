"""Tiny random checkpoints with attention by blocks or with experts, and a short reference implementation of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.checkpoint.tiny_vendors import (
    CHAT,
    DREAM_NAMES,
    HEADS,
    INNER,
    LAYERS,
    WIDTH,
    block_tensors,
    bytes_tokenizer,
    normal,
    rms_norm,
    turned,
    write,
)

KEYS, HEAD, EXPERTS, PER_TOKEN, EXPERT_INNER = 2, 12, 8, 3, 20
MIXTURE = {"num_experts": EXPERTS, "num_experts_per_tok": PER_TOKEN, "moe_intermediate_size": EXPERT_INNER}
QWEN_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
LLADA_ROLES = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
SDAR_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|MASK|>"]
LLADA2_SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<|role_end|>", "<|mask|>"]
FAST_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "|<MASK>|"]


def _sizes(rows: int) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEYS,
        "head_dim": HEAD,
        "vocab_size": rows,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    }


def _outer(rows: int, table: str = "embed_tokens") -> dict[str, Tensor]:
    return {
        f"model.{table}.weight": normal(rows, WIDTH, std=1.0, seed=1),
        "model.norm.weight": 1 + normal(WIDTH, seed=2),
        "lm_head.weight": normal(rows, WIDTH, seed=3),
    }


def _attention(prefix: str, head: int = HEAD, *, norms: bool = True, biases: bool = False) -> dict[str, Tensor]:
    """Queries, keys and values with heads of width ``head``, the matrix after them, and norms of queries and keys."""
    tensors = {}
    for number, (name, size) in enumerate((("q", HEADS * head), ("k", KEYS * head), ("v", KEYS * head))):
        tensors[f"{prefix}self_attn.{name}_proj.weight"] = normal(size, WIDTH, seed=300 + number)
        if biases:
            tensors[f"{prefix}self_attn.{name}_proj.bias"] = normal(size, seed=330 + number)
    tensors[f"{prefix}self_attn.o_proj.weight"] = normal(WIDTH, HEADS * head, seed=310)
    for number, name in enumerate(("q_norm", "k_norm") if norms else ()):
        tensors[f"{prefix}self_attn.{name}.weight"] = 1 + normal(head, seed=320 + number)
    return tensors


def _experts(prefix: str, seed: int) -> dict[str, Tensor]:
    tensors = {f"{prefix}mlp.gate.weight": normal(EXPERTS, WIDTH, std=1.0, seed=seed)}
    for expert in range(EXPERTS):
        for number, (name, shape) in enumerate(_MATRICES.items()):
            tensors[f"{prefix}mlp.experts.{expert}.{name}.weight"] = normal(*shape, seed=seed + 10 * expert + number)
    return tensors


_MATRICES = {
    "gate_proj": (EXPERT_INNER, WIDTH),
    "up_proj": (EXPERT_INNER, WIDTH),
    "down_proj": (WIDTH, EXPERT_INNER),
}


def _layers(head: int = HEAD, *, experts: bool = False, **settings: Any) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for at in range(LAYERS):
        prefix = f"model.layers.{at}."
        state |= block_tensors(prefix, DREAM_NAMES, 100 + at, KEYS, torch.float32)
        state |= _attention(prefix, head, **settings)
        if experts:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{prefix}mlp.")}
            state |= _experts(prefix, 400 + at)
    return state


def _template(end: str) -> dict[str, str]:
    return {"chat_template": CHAT.replace("{{ bos_token }}", "").replace("<|turn|>", end)}


def write_sdar(folder: Path, *, chat: bool = True, **changes: Any) -> Path:
    """An SDAR: a Qwen3 whose MASK is named neither in its configuration nor by its tokenizer."""
    core = bytes_tokenizer(SDAR_SPECIAL)
    rows = len(core.get_vocab()) + 5
    config = {"model_type": "sdar", "architectures": ["SDARForCausalLM"], **_sizes(rows), **changes}
    state = _outer(rows) | _layers()
    return write(folder, config, state, core, **QWEN_ROLES, **(_template("<|im_end|>") if chat else {}))


def write_fast_dllm(folder: Path, *, chat: bool = True, **changes: Any) -> Path:
    """A Fast-dLLM v2: a Qwen2 that predicts the next position, in blocks of 8."""
    core = bytes_tokenizer(FAST_SPECIAL)
    rows = len(core.get_vocab()) + 5
    config = {
        "model_type": "Fast_dLLM_Qwen",
        "architectures": ["Fast_dLLM_QwenForCausalLM"],
        **_sizes(rows),
        "bd_size": 8,
        **changes,
    }
    del config["head_dim"]
    state = _outer(rows) | _layers(WIDTH // HEADS, norms=False, biases=True)
    return write(folder, config, state, core, **QWEN_ROLES, **(_template("<|im_end|>") if chat else {}))


def write_sdar_moe(folder: Path, *, chat: bool = True, **changes: Any) -> Path:
    """A mixture of SDAR: its files hold each expert by itself."""
    core = bytes_tokenizer(SDAR_SPECIAL)
    rows = len(core.get_vocab()) + 5
    mixture = {
        **MIXTURE,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "block_size": 8,
    }
    config = {"model_type": "sdar_moe", **_sizes(rows), **mixture, **changes}
    state = _outer(rows) | _layers(experts=True)
    return write(folder, config, state, core, **QWEN_ROLES, **(_template("<|im_end|>") if chat else {}))


def write_rnd1(folder: Path, *, chat: bool = True, **changes: Any) -> Path:
    """An RND1: full attention, predicts the next position; its MASK is an id after those of the tokenizer."""
    core = bytes_tokenizer(SDAR_SPECIAL[:3])
    rows = len(core.get_vocab()) + 5
    mixture = {
        **MIXTURE,
        "norm_topk_prob": True,
        "mask_token_id": rows - 5,
        "rope_scaling": False,
    }
    config = {"model_type": "rnd1", "architectures": ["RND1LM"], **_sizes(rows), **mixture, **changes}
    state = _outer(rows) | _layers(experts=True)
    return write(folder, config, state, core, **QWEN_ROLES, **(_template("<|im_end|>") if chat else {}))


def write_llada_moe(folder: Path, *, chat: bool = True, **changes: Any) -> Path:
    """A LLaDA-MoE: full attention, and the model_type of a LLaDA."""
    core = bytes_tokenizer(LLADA2_SPECIAL)
    rows = len(core.get_vocab()) + 5
    config = {"model_type": "llada", "architectures": ["LLaDAMoEModelLM"], **_sizes(rows)}
    del config["intermediate_size"], config["head_dim"]
    config |= {
        "dense_intermediate_size": INNER,
        "expert_intermediate_size": EXPERT_INNER,
        "num_experts": EXPERTS,
        "num_experts_per_tok": PER_TOKEN,
        "norm_topk_prob": None,
        "qk_layernorm": True,
        "moe_layer_freq": [1] * LAYERS,
        "partial_rotary_factor": 1,
        "routed_scaling_factor": 1,
        **changes,
    }
    state = _outer(rows) | _layers(WIDTH // HEADS, experts=True)
    return write(folder, config, state, core, **LLADA_ROLES, **(_template("<|role_end|>") if chat else {}))


def write_llada2(folder: Path, *, chat: bool = True, **changes: Any) -> Path:
    """A LLaDA 2: fused queries, keys and values, a dense first layer, then groups of experts and a shared one."""
    core = bytes_tokenizer(LLADA2_SPECIAL)
    rows = len(core.get_vocab()) + 5
    config = {
        "model_type": "llada2_moe",
        "architectures": ["LLaDA2MoeModelLM"],
        **_sizes(rows),
        "block_size": 8,
        **MIXTURE,
        "num_shared_experts": 1,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
        "partial_rotary_factor": 0.5,
        "score_function": "sigmoid",
        "use_bias": False,
        "use_qkv_bias": False,
        **changes,
    }
    state = _outer(rows, "word_embeddings")
    for at in range(LAYERS):
        prefix = f"model.layers.{at}."
        whole = block_tensors(prefix, DREAM_NAMES, 100 + at, KEYS, torch.float32) | _attention(prefix)
        if at:
            whole = {name: tensor for name, tensor in whole.items() if ".mlp." not in name} | _experts(prefix, 400)
            whole[f"{prefix}mlp.gate.expert_bias"] = normal(EXPERTS, std=0.2, seed=5)
            for number, (name, shape) in enumerate(_MATRICES.items()):
                whole[f"{prefix}mlp.shared_experts.{name}.weight"] = normal(*shape, seed=600 + number)
        qkv = [whole.pop(f"{prefix}self_attn.{name}_proj.weight") for name in "qkv"]
        whole[f"{prefix}self_attn.query_key_value.weight"] = torch.cat(qkv)
        names = {"o_proj": "dense", "q_norm": "query_layernorm", "k_norm": "key_layernorm", "self_attn": "attention"}
        for name, tensor in whole.items():
            for theirs, ours in names.items():
                name = name.replace(theirs, ours)
            state[name] = tensor
    return write(folder, config, state, core, **LLADA_ROLES, **(_template("<|role_end|>") if chat else {}))


def plain_block_logits(state: dict[str, Tensor], config: dict[str, Any], ids: Tensor, block: int | None) -> Tensor:
    """Scores ``[B, L, rows]``, not shifted, from the tensors of a file, with attention by blocks of ``block``."""
    eps, base, length = config["rms_norm_eps"], config["rope_theta"], ids.shape[1]
    head = config.get("head_dim", WIDTH // HEADS)
    turning = int(head * config.get("partial_rotary_factor", 1))
    number = torch.arange(length) // (block or length)
    hidden = torch.where(number[:, None] >= number, 0.0, -torch.inf)
    x = state[f"model.{'word_embeddings' if config['model_type'] == 'llada2_moe' else 'embed_tokens'}.weight"][ids]
    for at in range(LAYERS):
        w = {name.removeprefix(f"model.layers.{at}."): tensor for name, tensor in state.items()}
        h = rms_norm(x, w["input_layernorm.weight"], eps)
        q, k, v = (part.unflatten(-1, (-1, head)).transpose(1, 2) for part in _queries_keys_values(h, w))
        for name, theirs in (("q", "query"), ("k", "key")):
            norm = w.get(f"self_attn.{name}_norm.weight", w.get(f"attention.{theirs}_layernorm.weight"))
            q, k = (rms_norm(q, norm, eps), k) if name == "q" and norm is not None else (q, k)
            k = rms_norm(k, norm, eps) if name == "k" and norm is not None else k
        q, k = (torch.cat([turned(part[..., :turning], base), part[..., turning:]], -1) for part in (q, k))
        k, v = (part.repeat_interleave(HEADS // KEYS, 1) for part in (k, v))
        mixed = (q @ k.mT / head**0.5 + hidden).softmax(-1) @ v
        out = w["self_attn.o_proj.weight"] if "self_attn.o_proj.weight" in w else w["attention.dense.weight"]
        x = x + mixed.transpose(1, 2).flatten(2) @ out.T
        h = rms_norm(x, w["post_attention_layernorm.weight"], eps)
        x = x + (_mixture(h, w, config) if "mlp.gate.weight" in w else _feedforward(h, w, "mlp."))
    return rms_norm(x, state["model.norm.weight"], eps) @ state["lm_head.weight"].T


def _queries_keys_values(h: Tensor, w: dict[str, Tensor]) -> list[Tensor]:
    if "attention.query_key_value.weight" in w:
        fused = h @ w["attention.query_key_value.weight"].T
        return list(fused.split([HEADS * HEAD, KEYS * HEAD, KEYS * HEAD], -1))
    return [
        h @ w[f"self_attn.{name}_proj.weight"].T + w.get(f"self_attn.{name}_proj.bias", torch.zeros(()))
        for name in "qkv"
    ]


def _feedforward(h: Tensor, w: dict[str, Tensor], prefix: str) -> Tensor:
    gate, up, down = (w[f"{prefix}{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (silu(h @ gate.T) * (h @ up.T)) @ down.T


def _mixture(h: Tensor, w: dict[str, Tensor], config: dict[str, Any]) -> Tensor:
    """Each expert's output for every position, weighted by whether and how much the position takes it."""
    scores = h @ w["mlp.gate.weight"].T
    outputs = torch.stack([_feedforward(h, w, f"mlp.experts.{expert}.") for expert in range(EXPERTS)], -1)
    if config["model_type"] != "llada2_moe":
        shares, taken = scores.softmax(-1).topk(PER_TOKEN, -1)
        shares = shares / shares.sum(-1, keepdim=True) if config["norm_topk_prob"] else shares
        return (outputs * torch.zeros_like(scores).scatter(-1, taken, shares)[..., None, :]).sum(-1)
    shares = scores.sigmoid()
    ranked = (shares + w["mlp.gate.expert_bias"]).unflatten(-1, (config["n_group"], -1))
    groups = ranked.topk(2, -1).values.sum(-1).topk(config["topk_group"], -1).indices
    kept = torch.zeros(ranked.shape[:-1], dtype=torch.bool).scatter(-1, groups, True)
    taken = ranked.masked_fill(~kept[..., None], -torch.inf).flatten(-2).topk(PER_TOKEN, -1).indices
    shares = shares.gather(-1, taken)
    shares = config["routed_scaling_factor"] * shares / shares.sum(-1, keepdim=True)
    mixed = (outputs * torch.zeros_like(scores).scatter(-1, taken, shares)[..., None, :]).sum(-1)
    return mixed + _feedforward(h, w, "mlp.shared_experts.")
