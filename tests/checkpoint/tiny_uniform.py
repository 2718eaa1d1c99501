"""Tiny random checkpoints of uniform models over tokens, in their authors' formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.checkpoint.tiny_encoders import tokenizer_for
from tests.checkpoint.tiny_vendors import write_mdlm


def write_duo(folder: Path, **changes: Any) -> Path:
    """A Duo: the tensors and the tokenizer of an MDLM."""
    return write_mdlm(folder, **{"model_type": "duo", "causal": False, "var_min": True, **changes})


def write_udlm(folder: Path, **changes: Any) -> Path:
    """A UDLM of sentences: MASK is one of the tokens of BERT's tokenizer, which names no roles."""
    core = tokenizer_for("bert")
    rows = core.get_vocab_size()
    write_mdlm(
        folder, **{"model_type": "udlm", "time_conditioning": True, "cfg": False, "cfg_num_classes": -1, **changes}
    )
    state = load_file(folder / "model.safetensors")
    ends = {
        name: w[:rows].clone() for name, w in state.items() if "vocab_embed" in name or "output_layer.linear" in name
    }
    save_file({**state, **ends}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    return folder
