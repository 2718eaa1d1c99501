"""Words and phrases anywhere in a text, for a batch: what ``contains`` and ``avoid`` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from dlmctl.text.spelling import split_words

# Of words; the model's own limit is below it.
ANY_NUMBER = 1_000_000


class Phrases(NamedTuple):
    """Phrases of one length for some rows of a batch: phrase i belongs to ``rows[i]`` and has the words ``ids[i]``."""

    rows: Tensor
    ids: Tensor


def split_phrases(phrases: Sequence[str]) -> list[list[str]]:
    """The words of each phrase, split as the tokeniser splits raw text.

    Raises:
        ValueError: a phrase has no words.
    """
    for phrase in phrases:
        if not split_words(phrase):
            raise ValueError(f"{phrase!r} holds no word")
    return [split_words(phrase) for phrase in phrases]


Item = TypeVar("Item", str, int)


def occurrences(words: Sequence[Item], phrase: Sequence[Item]) -> list[int]:
    """Where a phrase starts in a text, counted from 0; both as words, or both as ids."""
    return [at for at in range(len(words) - len(phrase) + 1) if list(words[at : at + len(phrase)]) == list(phrase)]


def by_length(ids: Sequence[Sequence[Sequence[int]]], device: torch.device) -> list[Phrases]:
    """The phrases ``ids[row]`` of every row, grouped by their number of words."""
    groups: dict[int, list[tuple[int, Sequence[int]]]] = {}
    for row, phrases in enumerate(ids):
        for phrase in phrases:
            groups.setdefault(len(phrase), []).append((row, phrase))
    return [
        Phrases(
            torch.tensor([row for row, _ in group], device=device),
            torch.tensor([list(phrase) for _, phrase in group], device=device),
        )
        for _, group in sorted(groups.items())
    ]


def word_log_probs(log_probs: Tensor, phrases: Phrases) -> Tensor:
    """log p of each word of a phrase for every start: ``log_probs [B, L, V]`` to ``[phrases, L - n + 1, n]``."""
    count = phrases.ids.shape[1]
    starts = max(0, log_probs.shape[1] - count + 1)
    found = log_probs[phrases.rows].gather(-1, phrases.ids[:, None].expand(-1, log_probs.shape[1], -1))
    return torch.stack([found[:, word : word + starts, word] for word in range(count)], dim=-1)
