"""Tiny random masked language models of ``transformers``, in the format in which it saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from tests.checkpoint.tiny_vendors import bytes_tokenizer

PIECES = "[PAD] [unused1] [UNK] [CLS] [SEP] [MASK] the red boat sinks near a river . , ##s ##ing boy sing".split()
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
WORD_PIECE = {"bert": "Bert", "distilbert": "DistilBert", "electra": "Electra", "modernbert": "ModernBert"}
BYTES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
KINDS = {**WORD_PIECE, "albert": "Albert", **BYTES}


def tokenizer_for(kind: str) -> Tokenizer:
    """The tokenizer of a kind of encoder."""
    if kind in BYTES:
        return bytes_tokenizer(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    renamed = {"[PAD]": "<pad>", "[UNK]": "<unk>"} if kind == "albert" else {}
    pieces = [renamed.get(piece, piece) for piece in PIECES]
    unknown = renamed.get("[UNK]", "[UNK]")
    core = BertWordPieceTokenizer({piece: at for at, piece in enumerate(pieces)}, unk_token=unknown)
    inner = Tokenizer.from_str(core.to_str())
    inner.add_special_tokens([piece for piece in pieces[:6] if piece != "[unused1]"])
    return inner


def write_encoder(folder: Path, kind: str, *, std: float = 0.3, **changes: Any) -> Path:
    """A random encoder of a kind with its tokenizer; special tokens are not named, as in the first checkpoints."""
    core = tokenizer_for(kind)
    pad = core.token_to_id("[PAD]" if kind in WORD_PIECE else "<pad>")
    sizes: dict[str, Any] = {**SIZES, "vocab_size": core.get_vocab_size() + 2, "pad_token_id": pad}
    if kind == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        sizes = {{**names, "intermediate_size": "hidden_dim"}.get(name, name): size for name, size in sizes.items()}
    if kind in ("electra", "albert"):
        sizes["embedding_size"] = 16
    if kind == "modernbert":
        sizes |= dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
        sizes |= {"local_attention": 4, "global_rope_theta": 500.0, "local_rope_theta": 70.0}
    if kind in BYTES:
        sizes["max_position_embeddings"] += pad + 1
    config = getattr(transformers, f"{KINDS[kind]}Config")(**{**sizes, **changes})
    network = getattr(transformers, f"{KINDS[kind]}ForMaskedLM")(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.normal_(0, std, generator=generator)
    folder.mkdir(parents=True)
    network.save_pretrained(folder)
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    return folder
