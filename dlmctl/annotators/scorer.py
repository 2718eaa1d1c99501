"""A language model of a data set as a reader of texts: how likely each word is after the words before it.

The scorer is a GPT-2 architecture over the words of the data set. A text is read as START words END: every word is
predicted, and END after the last one, so n words are n + 1 tokens. A word outside its vocabulary is read as UNK.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.checkpoint.resolve import SCORER
from dlmctl.checkpoint.scorer import load_scorer_model
from dlmctl.diffusion.own_modes import own_modes
from dlmctl.errors import DataError, ModelError
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.saved_tokenizer import load_tokenizer
from dlmctl.text.tokenizer import Tokenizer

BATCH_POSITIONS = 8192
Judge = tuple[GPT2, Tokenizer]
"""A scorer and its tokeniser."""


def sequence_nats(model: nn.Module, ids: Tensor, pad_id: int) -> Tensor:
    """-log p of every token after the first of ``ids [B, L]`` (START words END PAD...): ``[B, L - 1]``, 0 at PAD."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    targets = ids[:, 1:]
    # Flattened, because a softmax over a dimension that is not the last is several times slower.
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=pad_id, reduction="none")
    return nats.view_as(targets)


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
            "Train one on similar texts with `dlmctl train scorer --data DATA --out RUN`, and copy RUN/scorer there, "
            "or name one in a recipe: `scorer: everyday` for English texts."
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
    folder = scorer or model / SCORER
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
