"""The words that may stand at each place of a text, held to exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.control.prepared import Prepared
from dlmctl.control.state import ControlState

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


def only(ids: Tensor, words: int) -> Allowed:
    """The word with its id at each place of ``ids [B, L]``, any of so many ``words`` where that is negative."""
    other = torch.arange(words, device=ids.device) != ids[..., None]
    return Allowed(other & (ids >= 0)[..., None])
