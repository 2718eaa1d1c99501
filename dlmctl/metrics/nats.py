"""How fluent texts are in the mean: nats per token under a scorer of the model's words, or nats a word under any causal
language model, whose own tokens would make its figures comparable with no other's."""

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
from dlmctl.errors import DataError, ModelError, first_line
from dlmctl.metrics.lm_score import corpus_nats, load_scorer, scorer_of

PER_TOKEN, PER_WORD = "nats per token", "nats a word"
# What a tokenizer of Hugging Face has in its folder, and a scorer of ours has not.
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "merges.txt", "tokenizer.model")
# Texts that an outside model reads at once.
BATCH = 16

Texts = Sequence[Sequence[str]]


class Nats(NamedTuple):
    """A measure of fluency: texts, as words, to their mean nats, and per what."""

    unit: str
    measure: Callable[[Texts], float]

    def __call__(self, texts: Texts) -> float:
        """Mean nats of texts; lower is more fluent.

        Raises:
            DataError: there are none, or one is too long for the scorer.
        """
        return self.measure(texts)


def nats_of(pretrained: Pretrained, scorer: str | Path | None = None) -> Nats | None:
    """The measure of texts of a model.

    Args:
        scorer: folder of a scorer, or folder or hub name of any causal language model of Hugging Face; by default the
            scorer beside the model, and None where there is none.

    Raises:
        ModelError: there is no such scorer, or it cannot be read.
    """
    if scorer is None:
        judge = scorer_of(pretrained.folder)
        return None if judge is None else Nats(PER_TOKEN, lambda texts: corpus_nats(judge, texts))
    local = Path(scorer)
    if local.is_dir() and not any((local / name).exists() for name in TOKENIZERS):
        own = load_scorer(local)
        return Nats(PER_TOKEN, lambda texts: corpus_nats(own, texts))
    other, natural = load_causal(str(scorer)), pretrained.tokenizer.text
    return Nats(PER_WORD, lambda texts: _per_word(other, texts, [natural(words) for words in texts]))


class CausalLM(NamedTuple):
    """A causal language model of Hugging Face with its tokenizer."""

    model: Any
    tokenizer: Any

    @torch.no_grad()
    def token_nats(self, texts: Sequence[str], batch: int = BATCH) -> list[list[float]]:
        """-log p of each token of each text, as people write it, behind the model's own start.

        Args:
            batch: texts read at once.
        """
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        rows = [row if start is None else [start, *row] for row in rows]
        order = sorted((at for at, row in enumerate(rows) if len(row) > 1), key=lambda at: len(rows[at]))
        found: list[list[float]] = [[] for _ in rows]
        for first in range(0, len(order), batch):
            some = order[first : first + batch]
            most = max(len(rows[at]) for at in some)
            padding = [most - len(rows[at]) for at in some]
            device = self.model.device
            ids = torch.tensor([rows[at] + [0] * more for at, more in zip(some, padding, strict=True)], device=device)
            real = torch.tensor([[1] * (most - more) + [0] * more for more in padding], device=device)
            logits = self.model(input_ids=ids, attention_mask=real).logits[:, :-1].float()
            nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").double().tolist()
            for at, row in zip(some, nats, strict=True):
                found[at] = row[: len(rows[at]) - 1]
        return found


@lru_cache(maxsize=2)
def load_causal(source: str) -> CausalLM:
    """A causal language model of Hugging Face, by folder or hub name; its code, if it has any, is not run.

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
        what = f"is no causal language model that can be read: {first_line(error)}."
        raise ModelError(what, where=source, remedy="Give a folder or hub name of one in safetensors.") from None
    return CausalLM(model, tokenizer)


def _per_word(other: CausalLM, texts: Texts, natural: Sequence[str]) -> float:
    """Nats of all tokens of all texts over the number of their words."""
    if not any(texts):
        raise DataError("there are no words to score.")
    return sum(map(sum, other.token_nats(natural))) / sum(map(len, texts))
