"""Exact restriction of each position of a text to its allowed words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.text.vocabulary import known_ids

# Energy, in nats, of a position where no allowed word has any probability.
IMPOSSIBLE = 1e4


class Allowed(Prepared):
    """Restricts every position to its allowed words.

    Args:
        banned: the words that are not allowed, ``[B, L, V]``, or ``[B, 1, V]`` if all positions are alike.
    """

    exact = True

    def __init__(self, banned: Tensor) -> None:
        self.banned = banned

    def energy(self, state: ControlState) -> Tensor:
        """-log p(only allowed words), with the positions taken as independent."""
        allowed = state.word_log_probs.masked_fill(self.banned, -torch.inf)
        return -allowed.logsumexp(-1).clamp(min=-IMPOSSIBLE).sum(-1)

    def restrict(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(self.banned, -torch.inf)


def only_words(batch: BatchContext[Any], texts: Sequence[Sequence[str | None]], control: str) -> Allowed:
    """Fix the words of each text of a batch, from its first word on; None allows any word.

    Args:
        control: name of the control that the words come from, for messages.

    Raises:
        RecipeError: a word is outside the model's vocabulary.
    """
    ids = torch.full((len(batch), batch.length), -1)
    for row, words in enumerate(texts):
        positions = [position for position, word in enumerate(words, start=1) if word is not None]
        word_ids = known_ids([word for word in words if word is not None], batch.vocabulary, control)
        room = sum(position < batch.layouts[row].positions for position in positions)
        ids[row, positions[:room]] = torch.tensor(word_ids[:room], dtype=torch.long)
    ids = ids.to(batch.device)
    is_other = torch.arange(len(batch.vocabulary), device=batch.device) != ids[..., None]
    return Allowed(is_other & (ids >= 0)[..., None])
