"""Any causal language model of Hugging Face as a reader of texts: nats of each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from dlmctl.checkpoint.quiet_transformers import without_progress_bars
from dlmctl.checkpoint.resolve import resolve
from dlmctl.errors import ModelError, typed_message

# Files of a Hugging Face tokeniser, none of which a scorer of ours has.
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "merges.txt", "tokenizer.model")
# Texts in a batch.
BATCH = 16


def is_causal_model(scorer: str | Path) -> bool:
    """Whether a folder or a hub name is that of a Hugging Face model with its tokeniser, not of a scorer."""
    folder = Path(scorer)
    return not folder.is_dir() or any((folder / name).exists() for name in TOKENIZERS)


class CausalLM(NamedTuple):
    """A Hugging Face causal language model with its tokeniser."""

    model: Any
    tokenizer: Any

    @torch.no_grad()
    def token_nats(self, texts: Sequence[str], batch: int = BATCH) -> list[list[float]]:
        """-log p of each token of each text, in natural spelling, after the model's start token.

        Args:
            batch: texts read at once.
        """
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        rows = [row if start is None else [start, *row] for row in rows]
        order = sorted((at for at, row in enumerate(rows) if len(row) > 1), key=lambda at: len(rows[at]))
        nats_of_rows: list[list[float]] = [[] for _ in rows]
        for offset in range(0, len(order), batch):
            chosen = order[offset : offset + batch]
            width = max(len(rows[at]) for at in chosen)
            padding = [width - len(rows[at]) for at in chosen]
            device = self.model.device
            ids = torch.tensor(
                [rows[at] + [0] * pad_count for at, pad_count in zip(chosen, padding, strict=True)], device=device
            )
            attention_mask = torch.tensor(
                [[1] * (width - pad_count) + [0] * pad_count for pad_count in padding], device=device
            )
            logits = self.model(input_ids=ids, attention_mask=attention_mask).logits[:, :-1].float()
            nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").tolist()
            for at, row in zip(chosen, nats, strict=True):
                nats_of_rows[at] = row[: len(rows[at]) - 1]
        return nats_of_rows


@lru_cache(maxsize=2)
def load_causal(source: str) -> CausalLM:
    """Load a Hugging Face causal language model by folder or hub name, without running custom code.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve(source)
    try:
        with without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        message = f"is no causal language model that can be read: {typed_message(error)}."
        raise ModelError(message, where=source, remedy="Give a folder or hub name of one in safetensors.") from None
    return CausalLM(model, tokenizer)
