"""Mean fluency of texts: nats per token under a scorer over the model's words, or nats per word under any causal
language model, since figures per token of its own would not be comparable with those of other models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.quiet_transformers import without_progress_bars
from dlmctl.checkpoint.resolve import resolve
from dlmctl.errors import DataError, ModelError, typed_message
from dlmctl.metrics.lm_score import corpus_nats, load_scorer, scorer_of

PER_TOKEN, PER_WORD = "nats per token", "nats per word"
# Files of a Hugging Face tokeniser, none of which a scorer of ours has.
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "merges.txt", "tokenizer.model")
# Texts in a batch of a Hugging Face model.
BATCH = 16

Texts = Sequence[Sequence[str]]


class Nats(NamedTuple):
    """A measure of fluency: maps texts, as words, to their mean nats per ``unit``."""

    unit: str
    measure: Callable[[Texts], float]

    def __call__(self, texts: Texts) -> float:
        """Mean nats of texts; lower is more fluent.

        Raises:
            DataError: there are none, or one is too long for the scorer.
        """
        return self.measure(texts)


def nats_of(pretrained: Pretrained, scorer: str | Path | None = None) -> Nats | None:
    """The measure of fluency for texts of a model.

    Args:
        scorer: folder of a scorer, or folder or hub name of any Hugging Face causal language model; by default the
            model's scorer, and the result is None if there is none.

    Raises:
        ModelError: there is no such scorer, or it cannot be read.
    """
    if scorer is None:
        judge = scorer_of(pretrained.folder)
        return None if judge is None else Nats(PER_TOKEN, lambda texts: corpus_nats(judge, texts))
    local = Path(scorer)
    if local.is_dir() and not any((local / name).exists() for name in TOKENIZERS):
        scorer_judge = load_scorer(local)
        return Nats(PER_TOKEN, lambda texts: corpus_nats(scorer_judge, texts))
    language_model, natural = load_causal(str(scorer)), pretrained.tokenizer.text
    return Nats(PER_WORD, lambda texts: _per_word(language_model, texts, [natural(words) for words in texts]))


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


def _per_word(language_model: CausalLM, texts: Texts, natural: Sequence[str]) -> float:
    """Nats of all tokens of all texts, divided by the number of their words."""
    if not any(texts):
        raise DataError("there are no words to score.")
    return sum(map(sum, language_model.token_nats(natural))) / sum(map(len, texts))
