"""lm-score: nats per token of a text under an autoregressive model of the same corpus (lower is better).

The paper's fluency measure (Li et al. 2022, section 6). The scorer is a GPT-2 architecture over the words of the
data set. A text is scored as START words END: every word is predicted, and END after the last one, so n words are
n + 1 tokens. A word outside the scorer's vocabulary is scored as UNK.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.checkpoint.scorer import TIED, load_scorer_model, seal_scorer
from dlmctl.checkpoint.weights import staged, write_shards
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.errors import DataError, ModelError
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BATCH_POSITIONS = 8192
Judge = tuple[GPT2, Tokenizer]
"""A scorer and its tokeniser."""


def sequence_nats(model: nn.Module, ids: Tensor, pad_id: int) -> Tensor:
    """-log p of every token after the first of ``ids [B, L]`` (START words END PAD...): ``[B, L - 1]``, 0 at PAD."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], ignore_index=pad_id, reduction="none")


@own_modes()
@torch.no_grad()
def token_nats(
    scorer: GPT2, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], *, cut: bool = False
) -> list[list[float]]:
    """-log p of every word of each sentence, given as words, and of END after the last.

    Args:
        cut: truncate a sentence that is longer than the scorer can read to its first words, without END.

    Raises:
        DataError: a sentence is too long, and ``cut`` is off.
    """
    scorer.eval()
    limit = scorer.config.n_positions + 1  # END is predicted, never read
    rows = [tokenizer.encode(words)[: limit if cut else None] for words in sentences]
    too_long = [at for at, row in enumerate(rows) if len(row) > limit]
    if too_long:
        raise DataError(
            f"sentence {too_long[0] + 1} has {len(rows[too_long[0]]) - 2} words; this scorer reads up to {limit - 2}.",
            remedy="Shorten it, or train a scorer with a greater `model.length`.",
        )
    nats_of_rows: list[list[float]] = [[] for _ in rows]
    for batch in _batches([len(row) for row in rows]):
        ids = stacked([rows[at] for at in batch], tokenizer.pad_id, scorer.device)
        nats = sequence_nats(scorer, ids, tokenizer.pad_id)
        for at, row in zip(batch, nats.tolist(), strict=True):
            nats_of_rows[at] = row[: len(rows[at]) - 1]
    return nats_of_rows


def stacked(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Tensor:
    """Rows of ids as ``[B, L]``, padded to the longest."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)


def lm_score(scorer: GPT2, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[float]:
    """Nats per token of each sentence, given as words. Raises as ``token_nats``."""
    return [sum(nats) / len(nats) for nats in token_nats(scorer, tokenizer, sentences)]


def mean_nats(scores: Sequence[float], sentences: Sequence[Sequence[str]]) -> float:
    """Nats per token of a corpus, total nats over total tokens, from each sentence's ``lm_score``.

    END is a token, so a sentence of n words has weight n + 1; a plain mean of the scores would overweight short ones.

    Raises:
        DataError: there are no sentences.
    """
    if not sentences:
        raise DataError("there are no sentences to score.")
    tokens = [len(words) + 1 for words in sentences]
    return sum(score * count for score, count in zip(scores, tokens, strict=True)) / sum(tokens)


def corpus_nats(judge: Judge, sentences: Sequence[Sequence[str]]) -> float:
    """``mean_nats`` of sentences under a scorer."""
    return mean_nats(lm_score(*judge, sentences), sentences)


def save_scorer(scorer: GPT2LMHeadModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights (safetensors, float16: scores differ by less than 0.001 nats), sizes and vocabulary.

    They replace an earlier scorer together, once all of them are written.

    Raises:
        UserError: the folder cannot be written.
    """
    state = {name: tensor for name, tensor in scorer.state_dict().items() if name != TIED}
    config = copy.deepcopy(scorer.config)
    config.architectures = [type(scorer).__name__]
    with staged(folder) as staging:
        config.save_pretrained(staging)
        write_shards(state, staging, dtype=torch.float16)
        tokenizer.save(staging)
        seal_scorer(staging)


@lru_cache(maxsize=8)
@own_modes()
def load_scorer(folder: Path) -> Judge:
    """Load the scorer of ``folder`` in float32, and its tokeniser. The last few are cached.

    A scorer without a vocabulary uses that of the model whose folder contains it.

    Raises:
        ModelError: the folder is missing, damaged or holds another kind of model.
    """
    if not os.path.lexists(folder / "config.json"):
        remedy = (
            "Train one on similar texts with `dlmctl train scorer --data DATA --out RUN`, and copy RUN/scorer there."
        )
        raise ModelError("no scorer here.", where=str(folder), remedy=remedy)
    has_own_words = any(os.path.lexists(folder / name) for name in ("vocab.json", "tokenizer"))
    words_folder = folder if has_own_words else folder.parent
    remedy = "" if has_own_words else f"{folder} has no vocabulary: it belongs to the model whose folder it was in."
    try:
        tokenizer = load_tokenizer(words_folder)
    except DataError as error:
        raise ModelError(error.what, where=str(words_folder / "vocab.json"), remedy=remedy) from None
    scorer = load_scorer_model(folder)
    if len(tokenizer) != scorer.config.vocab_size:
        raise ModelError(
            f"vocab.json has {len(tokenizer)} entries, the weights of the scorer {scorer.config.vocab_size}.",
            where=str(words_folder),
            remedy=remedy,
        )
    return scorer, tokenizer


def scorer_of(model: Path, scorer: Path | None = None) -> Judge | None:
    """``load_scorer`` of the given folder, or by default of the model's scorer; None if the model has none."""
    folder = scorer or model / "scorer"
    return load_scorer(folder) if scorer is not None or folder.is_dir() else None


def _batches(lengths: list[int]) -> list[list[int]]:
    """Row numbers in batches of similar length and at most ``BATCH_POSITIONS`` positions."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        # Rows are sorted by length, so this row is the longest of its batch.
        if not batches or (len(batches[-1]) + 1) * lengths[row] > BATCH_POSITIONS:
            batches.append([])
        batches[-1].append(row)
    return batches
