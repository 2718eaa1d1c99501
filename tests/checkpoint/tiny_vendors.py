"""Tiny random checkpoints in their authors' formats, and short reference implementations of their networks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

WORDS = ["the", "red", "boat", "sinks", "near", "a", "river", "."]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
CHAT = (
    "{{ bos_token }}{% for turn in messages %}<|role|>{{ turn['role'] }}\n{{ turn['content'] }}<|turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant\n{% endif %}"
)
HEADS, WIDTH, INNER, LAYERS = 4, 32, 48, 2
CODE = "import pathlib\npathlib.Path({mark!r}).touch()\nclass Theirs: pass\n"


def bytes_tokenizer(special: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer with merges for a few words, followed by control tokens."""
    vocabulary = {letter: at for at, letter in enumerate(LETTERS)}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for text in (word, f"Ġ{word}"):
            for end in range(2, len(text) + 1):
                pair = (text[: end - 1], text[end - 1])
                if text[:end] not in vocabulary and pair[0] in vocabulary:
                    vocabulary[text[:end]] = len(vocabulary)
                    merges.append(pair)
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return core


def write(folder: Path, config: dict[str, Any], state: dict[str, Tensor], core: Tokenizer, **special: Any) -> Path:
    """Write a checkpoint folder whose own code leaves a file behind if it is ever run."""
    folder.mkdir(parents=True)
    named = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "modeling_theirs.Theirs")
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": named}))
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    core.save(str(folder / "tokenizer.json"))
    tokens = {"auto_map": {"AutoTokenizer": ["modeling_theirs.Theirs", None]}, "tokenizer_class": "Theirs", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    for name in ("modeling_theirs.py", "configuration_theirs.py", "tokenization_theirs.py", "__init__.py"):
        (folder / name).write_text(CODE.format(mark=str(folder.parent / "it ran")))
    return folder


def normal(*shape: int, std: float = 0.3, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(31**at * size for at, size in enumerate(shape)))
    return (std * torch.randn(*shape, generator=generator)).to(dtype)


def block_tensors(prefix: str, names: dict[str, str], seed: int, heads: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of one Llama block, under the names to which ``names`` maps those of Llama."""
    keys = WIDTH // HEADS * heads
    shapes = {
        "q": (WIDTH, WIDTH),
        "k": (keys, WIDTH),
        "v": (keys, WIDTH),
        "o": (WIDTH, WIDTH),
        "gate": (INNER, WIDTH),
        "up": (INNER, WIDTH),
        "down": (WIDTH, INNER),
    }
    tensors = {f"{prefix}{names[name]}.weight": normal(*shapes[name], seed=seed + 7 * at, dtype=dtype)
             for at, name in enumerate(shapes)}  # fmt: skip
    for at, name in enumerate(("attention", "feedforward")):
        tensors[f"{prefix}{names[name]}.weight"] = 1 + normal(WIDTH, seed=seed + 90 + at, dtype=dtype)
    return tensors


LLADA_NAMES = {
    "q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "attn_out", "gate": "ff_proj", "up": "up_proj",
    "down": "ff_out", "attention": "attn_norm", "feedforward": "ff_norm",
}  # fmt: skip
DREAM_NAMES = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "attention": "input_layernorm",
    "feedforward": "post_attention_layernorm",
}  # fmt: skip


def write_llada(folder: Path, *, chat: bool = True, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A LLaDA: control tokens BOS, EOS, end of turn and MASK; more embedding rows than token ids."""
    core = bytes_tokenizer(["<|bos|>", "<|eos|>", "<|role|>", "<|turn|>", "<|mdm_mask|>"])
    ids = core.get_vocab()
    rows = len(ids) + 3
    config = {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "d_model": WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "n_kv_heads": HEADS,
        "mlp_ratio": 4,
        "mlp_hidden_size": INNER,
        "vocab_size": rows,
        "embedding_size": rows,
        "max_sequence_length": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "weight_tying": False,
        "mask_token_id": ids["<|mdm_mask|>"],
        "eos_token_id": ids["<|eos|>"],
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "include_bias": False,
        "include_qkv_bias": False,
        "torch_dtype": "bfloat16",
        **changes,
    }
    root = "model.transformer."
    state = {
        f"{root}wte.weight": normal(rows, WIDTH, std=1.0, seed=1, dtype=dtype),
        f"{root}ln_f.weight": 1 + normal(WIDTH, seed=2, dtype=dtype),
        f"{root}ff_out.weight": normal(rows, WIDTH, seed=3, dtype=dtype),
    }
    for at in range(LAYERS):
        state |= block_tensors(f"{root}blocks.{at}.", LLADA_NAMES, 100 + at, HEADS, dtype)
    special = {"bos_token": "<|bos|>", "eos_token": {"content": "<|eos|>"}, "pad_token": "<|eos|>"}
    return write(folder, config, state, core, **special, **({"chat_template": CHAT} if chat else {}))


def write_dream(
    folder: Path, *, chat: bool = True, pad: str = "<|endoftext|>", dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """A Dream: grouped heads, biases of the queries, keys and values; its tokenizer as vocab.json and merges.txt."""
    special = list(dict.fromkeys(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|mask|>", pad]))
    core = bytes_tokenizer(special)
    ids = core.get_vocab()
    rows, keys = len(ids) + 5, 2
    config = {
        "model_type": "Dream",
        "architectures": ["DreamModel"],
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": keys,
        "vocab_size": rows,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "mask_token_id": ids["<|mask|>"],
        "hidden_act": "silu",
        "use_sliding_window": False,
        "rope_scaling": None,
        **changes,
    }
    state = {
        "model.embed_tokens.weight": normal(rows, WIDTH, std=1.0, seed=1, dtype=dtype),
        "model.norm.weight": 1 + normal(WIDTH, seed=2, dtype=dtype),
        "lm_head.weight": normal(rows, WIDTH, seed=3, dtype=dtype),
    }
    for at in range(LAYERS):
        prefix = f"model.layers.{at}."
        state |= block_tensors(prefix, DREAM_NAMES, 100 + at, keys, dtype)
        for number, (name, heads) in enumerate((("q", HEADS), ("k", keys), ("v", keys))):
            size = WIDTH // HEADS * heads
            state[f"{prefix}{DREAM_NAMES[name]}.bias"] = normal(size, seed=200 + 10 * at + number, dtype=dtype)
    added = {str(ids[token]): {"content": token, "special": True} for token in special}
    roles = {"bos_token": "<|beginoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad}
    roles |= {"mask_token": "<|mask|>", "added_tokens_decoder": added}
    if chat:
        roles["chat_template"] = CHAT.replace("<|turn|>", "<|im_end|>")
    write(folder, config, state, core, **roles)
    # As published: pieces and merges, no tokenizer.json.
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in whole["model"]["merges"]))
    return folder


def write_a2d(folder: Path, *, chat: bool = True, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """An A2D made from Qwen3: norms of queries and keys, heads of a width of their own, tied embeddings."""
    core = bytes_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"])
    rows, keys, head = len(core.get_vocab()) + 5, 2, 12
    config = {
        "model_type": "a2d-qwen3",
        "architectures": ["A2DQwen3LMHeadModel"],
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": keys,
        "head_dim": head,
        "vocab_size": rows,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "layer_types": ["full_attention"] * LAYERS,
        **changes,
    }
    state = {
        "model.embed_tokens.weight": normal(rows, WIDTH, seed=1, dtype=dtype),
        "model.norm.weight": 1 + normal(WIDTH, seed=2, dtype=dtype),
    }
    for at in range(LAYERS):
        prefix = f"model.layers.{at}."
        state |= block_tensors(prefix, DREAM_NAMES, 100 + at, keys, dtype)
        for number, (name, size) in enumerate((("q", HEADS * head), ("k", keys * head), ("v", keys * head))):
            state[f"{prefix}{DREAM_NAMES[name]}.weight"] = normal(size, WIDTH, seed=300 + number, dtype=dtype)
        state[f"{prefix}self_attn.o_proj.weight"] = normal(WIDTH, HEADS * head, seed=310 + at, dtype=dtype)
        for number, name in enumerate(("q_norm", "k_norm")):
            state[f"{prefix}self_attn.{name}.weight"] = 1 + normal(head, seed=320 + number, dtype=dtype)
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "mask_token": "<|mask|>"}
    template = {"chat_template": CHAT.replace("{{ bos_token }}", "").replace("<|turn|>", "<|im_end|>")} if chat else {}
    return write(folder, config, state, core, **roles, **template)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def turned(x: Tensor, base: float) -> Tensor:
    """Rotary positions of ``x [B, heads, L, d]``: component i and i + d / 2 are a pair."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[2])[:, None] * base ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


def plain_logits(state: dict[str, Tensor], config: dict[str, Any], ids: Tensor) -> Tensor:
    """Scores ``[B, L, rows]`` of a LLaDA, Dream or A2D with full attention, from the tensors of its file, not
    shifted."""
    llada = config["model_type"] == "llada"
    names, root = (LLADA_NAMES, "model.transformer.blocks.") if llada else (DREAM_NAMES, "model.layers.")
    table, last, out = (
        ("model.transformer.wte", "model.transformer.ln_f", "model.transformer.ff_out")
        if llada
        else ("model.embed_tokens", "model.norm", "lm_head")
    )
    eps, base = config["rms_norm_eps"], config["rope_theta"]
    head = config.get("head_dim", WIDTH // HEADS)
    x = state[f"{table}.weight"][ids]
    for at in range(LAYERS):
        weight = {name: state[f"{root}{at}.{theirs}.weight"] for name, theirs in names.items()}
        bias = {name: state.get(f"{root}{at}.{names[name]}.bias", torch.zeros(())) for name in "qkv"}
        h = rms_norm(x, weight["attention"], eps)
        q, k, v = (h @ weight[name].T + bias[name] for name in "qkv")
        q, k, v = (part.unflatten(-1, (-1, head)).transpose(1, 2) for part in (q, k, v))
        norms = (state.get(f"{root}{at}.self_attn.{name}_norm.weight") for name in "qk")
        q, k = (part if norm is None else rms_norm(part, norm, eps) for part, norm in zip((q, k), norms, strict=True))
        q, k = turned(q, base), turned(k, base)
        k, v = (part.repeat_interleave(HEADS // part.shape[1], 1) for part in (k, v))
        mixed = (q @ k.mT / math.sqrt(head)).softmax(-1) @ v
        x = x + mixed.transpose(1, 2).flatten(2) @ weight["o"].T
        h = rms_norm(x, weight["feedforward"], eps)
        x = x + (torch.nn.functional.silu(h @ weight["gate"].T) * (h @ weight["up"].T)) @ weight["down"].T
    rows = state[f"{table if config.get('tie_word_embeddings') else out}.weight"]
    return rms_norm(x, state[f"{last}.weight"], eps) @ rows.T


def write_mdlm(folder: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """An MDLM: one control token that begins and ends texts; MASK follows the tokenizer's last id."""
    core = bytes_tokenizer(["<|endoftext|>"])
    rows, condition = len(core.get_vocab()) + 1, 12
    config = {
        "model_type": "mdlm",
        "hidden_dim": WIDTH,
        "n_blocks": LAYERS,
        "n_heads": HEADS,
        "cond_dim": condition,
        "model_length": 64,
        "vocab_size": rows,
        "dropout": 0.1,
        "time_conditioning": False,
        **changes,
    }
    shapes: dict[str, tuple[int, ...]] = {
        "vocab_embed.embedding": (rows, WIDTH),
        "sigma_map.mlp.0.weight": (condition, 256),
        "sigma_map.mlp.0.bias": (condition,),
        "sigma_map.mlp.2.weight": (condition, condition),
        "sigma_map.mlp.2.bias": (condition,),
        "rotary_emb.inv_freq": (WIDTH // HEADS // 2,),
        "output_layer.norm_final.weight": (WIDTH,),
        "output_layer.linear.weight": (rows, WIDTH),
        "output_layer.linear.bias": (rows,),
        "output_layer.adaLN_modulation.weight": (2 * WIDTH, condition),
        "output_layer.adaLN_modulation.bias": (2 * WIDTH,),
    }
    for at in range(LAYERS):
        inner = {
            "norm1.weight": (WIDTH,),
            "attn_qkv.weight": (3 * WIDTH, WIDTH),
            "attn_out.weight": (WIDTH, WIDTH),
            "norm2.weight": (WIDTH,),
            "mlp.0.weight": (4 * WIDTH, WIDTH),
            "mlp.0.bias": (4 * WIDTH,),
            "mlp.2.weight": (WIDTH, 4 * WIDTH),
            "mlp.2.bias": (WIDTH,),
            "adaLN_modulation.weight": (6 * WIDTH, condition),
            "adaLN_modulation.bias": (6 * WIDTH,),
        }
        shapes |= {f"blocks.{at}.{name}": shape for name, shape in inner.items()}
    state = {
        f"backbone.{name}": normal(*shape, seed=at, dtype=dtype) for at, (name, shape) in enumerate(shapes.items())
    }
    if not config.get("adaln", True):
        state = {name: w for name, w in state.items() if "adaLN" not in name and "sigma_map" not in name}
    end = "<|endoftext|>"
    return write(folder, config, state, core, bos_token=end, eos_token=end, unk_token=end)


def write_bd3lm(folder: Path, **changes: Any) -> Path:
    """A BD3LM: the tensors of an MDLM, and the bounds of the noise in training."""
    blocks = {"model_type": "bd3lm", "block_size": 4, "cross_attn": True, "adaln": True, "causal": False}
    write_mdlm(folder, **{**blocks, **changes})
    state = load_file(folder / "model.safetensors")
    bounds = {"sampling_eps_min": torch.tensor(1e-3), "sampling_eps_max": torch.tensor(0.999)}
    save_file({**state, **bounds}, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_sedd(folder: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A SEDD: the tensors of an MDLM; its configuration is that of its training, without a model_type."""
    write_mdlm(folder, dtype=dtype)
    state = load_file(folder / "model.safetensors")
    sizes = json.loads((folder / "config.json").read_text())
    config = {
        "ngpus": 8,
        "tokens": sizes["vocab_size"] - 1,
        "graph": {"type": "absorb", "file": "data", "report_all": False},
        "noise": {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20},
        "model": {
            "name": "small",
            "type": "ddit",
            "hidden_size": WIDTH,
            "cond_dim": sizes["cond_dim"],
            "length": 64,
            "n_blocks": LAYERS,
            "n_heads": HEADS,
            "scale_by_sigma": True,
            "dropout": 0.1,
        },
        "training": {"ema": 0.9999},
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    state = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def plain_mdlm(state: dict[str, Tensor], ids: Tensor, sigma: Tensor | None = None, block: int | None = None) -> Tensor:
    """Scores ``[B, L, rows]`` of an MDLM, BD3LM or SEDD, from the tensors of its file.

    Args:
        sigma: the noise level of each row ``[B]``; 0 if not given.
        block: positions per block of attention; all in one if not given.
    """
    w = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}

    def normed(x: Tensor, weight: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * weight

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    silu = torch.nn.functional.silu
    level = torch.zeros(())
    if "sigma_map.mlp.0.weight" in w:
        at_levels = torch.zeros(len(ids)) if sigma is None else sigma
        angles = at_levels[:, None, None] * 1e4 ** (-torch.arange(128) / 128)
        waves = torch.cat([angles.cos(), angles.sin()], -1).to(w["sigma_map.mlp.0.weight"])
        level = silu(linear(silu(linear(waves, "sigma_map.mlp.0")), "sigma_map.mlp.2"))

    def modulation(name: str, neutral: list[float]) -> list[Any]:
        return list(linear(level, name).chunk(len(neutral), -1)) if f"{name}.weight" in w else neutral

    number = torch.arange(ids.shape[1]) // (block or ids.shape[1])
    unseen = torch.where(number[:, None] >= number, 0.0, -torch.inf)
    x = w["vocab_embed.embedding"][ids]
    for at in range(LAYERS):
        layer = f"blocks.{at}."
        shift, scale, gate, shift2, scale2, gate2 = modulation(f"{layer}adaLN_modulation", [0, 0, 1] * 2)
        h = normed(x, w[f"{layer}norm1.weight"]) * (1 + scale) + shift
        parts = linear(h, f"{layer}attn_qkv").chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        q, k = turned(q, 1e4), turned(k, 1e4)
        mixed = (q @ k.mT / math.sqrt(WIDTH // HEADS) + unseen).softmax(-1) @ v
        x = x + gate * linear(mixed.transpose(1, 2).flatten(2), f"{layer}attn_out")
        h = normed(x, w[f"{layer}norm2.weight"]) * (1 + scale2) + shift2
        h = torch.nn.functional.gelu(linear(h, f"{layer}mlp.0"), approximate="tanh")
        x = x + gate2 * linear(h, f"{layer}mlp.2")
    shift, scale = modulation("output_layer.adaLN_modulation", [0, 0])
    return linear(normed(x, w["output_layer.norm_final.weight"]) * (1 + scale) + shift, "output_layer.linear")
