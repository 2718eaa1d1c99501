"""The words that may stand at each place of a text, held to exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.text.vocabulary import known_ids

# Nats of a place where no word that may stand there has any probability.
IMPOSSIBLE = 1e4


class Allowed(Prepared):
    """No other words than those that may stand where they are.

    Args:
        banned: the words that may not, ``[B, L, V]``, or ``[B, 1, V]`` where all places are alike.
    """

    exact = True

    def __init__(self, banned: Tensor) -> None:
        self.banned = banned

    def energy(self, state: ControlState) -> Tensor:
        """-log p(only words that may stand where they are), the places taken as independent."""
        allowed = state.word_log_probs.masked_fill(self.banned, -torch.inf)
        return -allowed.logsumexp(-1).clamp(min=-IMPOSSIBLE).sum(-1)

    def restrict(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(self.banned, -torch.inf)


def only_words(batch: BatchContext[Any], texts: Sequence[Sequence[str | None]], control: str) -> Allowed:
    """The words that stand in each text of a batch, from its first on; any word where there is None.

    Args:
        control: whose words these are, for messages.

    Raises:
        RecipeError: a word is outside the model's vocabulary.
    """
    ids = torch.full((len(batch), batch.length), -1)
    for row, words in enumerate(texts):
        places = [place for place, word in enumerate(words, start=1) if word is not None]
        known = known_ids([word for word in words if word is not None], batch.vocabulary, control)
        room = sum(place < batch.layouts[row].positions for place in places)
        ids[row, places[:room]] = torch.tensor(known[:room], dtype=torch.long)
    ids = ids.to(batch.device)
    other = torch.arange(len(batch.vocabulary), device=batch.device) != ids[..., None]
    return Allowed(other & (ids >= 0)[..., None])
