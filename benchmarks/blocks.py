"""What is gained by keeping the keys and values of finished blocks, on a random SDAR, in one run with and without.

Usage: python benchmarks/blocks.py [--hidden 512] [--layers 12] [--rows 32000] [--prompt 157] [--new-tokens 64]
Prints CPU seconds per text. Weights are random, so it says nothing about texts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

import dlmctl
from controls import Contains

HEAD = 64
SPECIAL = ["<|endoftext|>", "<|im_end|>", "<|MASK|>"]


def write_sdar(folder: Path, hidden: int, layers: int, rows: int) -> None:
    """An SDAR with random weights, whose tokens are bytes."""
    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(letters, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    core.save(str(folder / "tokenizer.json"))
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    inner, heads = 3 * hidden, hidden // HEAD
    key_heads = max(1, heads // 2)
    sizes = {
        "model_type": "sdar",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": HEAD,
        "vocab_size": rows,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(sizes))
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (rows, hidden), "norm": (hidden,)}
    for layer in range(layers):
        shapes |= {f"layers.{layer}.{name}_layernorm": (hidden,) for name in ("input", "post_attention")}
        shapes |= {f"layers.{layer}.self_attn.{name}_norm": (HEAD,) for name in "qk"}
        shapes |= {f"layers.{layer}.self_attn.{name}_proj": (key_heads * HEAD, hidden) for name in "kv"}
        shapes |= {f"layers.{layer}.self_attn.{name}_proj": (hidden, hidden) for name in "qo"}
        shapes |= {f"layers.{layer}.mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
        shapes[f"layers.{layer}.mlp.down_proj"] = (hidden, inner)
    state = {f"model.{name}.weight": _random(shape) for name, shape in shapes.items()}
    save_file(state | {"lm_head.weight": _random((rows, hidden))}, folder / "model.safetensors")


def _random(shape: tuple[int, ...]) -> Tensor:
    return torch.ones(shape) if len(shape) == 1 else 0.02 * torch.randn(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("hidden", 512), ("layers", 12), ("rows", 32000), ("prompt", 157), ("new-tokens", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_sdar(Path(folder), options.hidden, options.layers, options.rows)
        model = dlmctl.load(folder)
        print(f"{sum(weight.numel() for weight in model.model.parameters()) / 1e6:.1f} M weights")
        prompt = {"text": "a" * (options.prompt - 1), "chat": False}
        sampler = {"new_tokens": options.new_tokens, "precision": "fp32"}

        def seconds(control: Contains | None) -> float:
            started = time.process_time()
            model.generate(control, prompt=prompt, samples=1, device="cpu", sampler=sampler)
            return time.process_time() - started

        for control in (None, Contains(["red boat"])):
            seconds(control)  # loads and prepares what is needed once
            for _ in range(options.repeats):
                kept = seconds(control)
                with patch("dlmctl.sampling.masked_draw.attention_blocks", return_value=None):
                    computed = seconds(control)
                kind = "free" if control is None else "contains"
                print(f"{kind}: {kept:.2f} s, {computed:.2f} s if nothing is kept, {computed / kept:.1f} times")


if __name__ == "__main__":
    main()
