"""Any causal language model of Hugging Face as a reader of texts: nats of each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from dlmctl.annotators.scorer import stacked
from dlmctl.checkpoint.quiet_transformers import without_progress_bars, without_reports
from dlmctl.checkpoint.resolve import resolve
from dlmctl.errors import ModelError, typed_message

# Files of a Hugging Face tokeniser, none of which a scorer of ours has.
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "merges.txt", "tokenizer.model")
NAN = "computes NaN in place of probabilities; its weights may be damaged."
# Logits of one model for one text differ by no more than this, as a share of their range.
SAME = 1e-4
# Texts in a batch.
BATCH = 16


def is_causal_model(folder: Path) -> bool:
    """Whether a folder is that of a Hugging Face model with its tokeniser, not of a scorer."""
    return any((folder / name).exists() for name in TOKENIZERS)


class CausalLM(NamedTuple):
    """A Hugging Face causal language model with its tokeniser."""

    model: Any
    tokenizer: Any

    @property
    def start(self) -> int | None:
        """The token before a text; None if the model has none, so that the first token of a text has no probability."""
        start: int | None = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if start is None else start

    @torch.no_grad()
    def token_nats(self, texts: Sequence[str], batch: int = BATCH, *, cut: bool = False) -> list[list[float]]:
        """-log p of each token of each text, in natural spelling, after the model's start token.

        Args:
            batch: texts read at once.
            cut: truncate a text that is longer than the model can read to its first tokens.

        Raises:
            ModelError: a text is too long, and ``cut`` is off; or the model computes no number.
        """
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        rows = self._within_limit([row if self.start is None else [self.start, *row] for row in rows], cut=cut)
        order = sorted((at for at, row in enumerate(rows) if len(row) > 1), key=lambda at: len(rows[at]))
        nats_of_rows: list[list[float]] = [[] for _ in rows]
        for offset in range(0, len(order), batch):
            chosen = order[offset : offset + batch]
            for at, nats in zip(chosen, self._read([rows[at] for at in chosen]), strict=True):
                nats_of_rows[at] = nats
        return nats_of_rows

    def _within_limit(self, rows: list[list[int]], *, cut: bool) -> list[list[int]]:
        limit = getattr(self.model.config, "max_position_embeddings", None) or max(map(len, rows), default=0)
        longest = max(map(len, rows), default=0)
        if longest > limit and not cut:
            what = f"a text has {longest:,} tokens; this model reads up to {limit:,}."
            raise ModelError(what, where=self.name, remedy="Take a model that reads longer texts.")
        return [row[:limit] for row in rows]

    def _read(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """The nats of all tokens but the first of rows of tokens."""
        device = self.model.device
        ids, mask = stacked(rows, 0, device), stacked([[1] * len(row) for row in rows], 0, device)
        is_read = mask[:, 1:].bool()
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        # Flattened, because a softmax over a dimension that is not the last is several times slower.
        nats = F.cross_entropy(logits[is_read].float(), ids[:, 1:][is_read], reduction="none")
        if nats.isnan().any():
            raise ModelError(NAN, where=self.name, remedy="Take another one.")
        return [row.tolist() for row in nats.split([len(tokens) - 1 for tokens in rows])]

    @property
    def name(self) -> str:
        """The folder or hub name, for messages."""
        return str(self.model.config.name_or_path)


def load_causal(source: str) -> CausalLM:
    """Load a Hugging Face causal language model by folder or hub name, without running custom code. The last few are
    cached, each once, whichever way it is named.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    folder = resolve(source).resolve()
    try:
        return _in_folder(folder)
    except ModelError as error:
        raise ModelError(error.what, where=source, remedy=error.remedy) from None


# A recipe may name three: `scorer`, `second_scorer` and the `scorer` of `surprisal`.
@lru_cache(maxsize=3)
def _in_folder(folder: Path) -> CausalLM:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    remedy = "Give a folder or hub name of one in safetensors."
    trusted = {"trust_remote_code": False}
    try:
        with without_progress_bars(), without_reports():
            tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
            model, loaded = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **trusted
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        message = f"is no causal language model that can be read: {typed_message(error)}."
        raise ModelError(message, remedy=remedy) from None
    reader = CausalLM(model.eval(), tokenizer)
    fault = _fault_of(reader, sorted(loaded["missing_keys"]))
    if fault is not None:
        raise ModelError(fault, remedy=remedy)
    return reader


@torch.no_grad()
def _fault_of(reader: CausalLM, missing: Sequence[str]) -> str | None:
    """Why a model that was loaded gives no probabilities of a text; None if it does."""
    if missing:
        return f"lacks {len(missing):,} of its weights, such as {missing[0]!r}, which would be random."
    known = reader.model.get_input_embeddings().num_embeddings
    if reader.tokenizer.vocab_size > known:
        return f"its tokeniser has {reader.tokenizer.vocab_size:,} tokens, the model {known:,}."
    # An encoder such as BERT loads, too, but what it says of a word depends on the words after it.
    first, second = reader.model(input_ids=torch.tensor([[0, 0], [0, 1]])).logits[:, 0]
    if first.isnan().any():
        return NAN
    if (first - second).abs().max() > SAME * (first.max() - first.min()):
        return "is no causal language model: it also reads the words after a word."
    return None
