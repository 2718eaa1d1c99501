"""Whether a reader accepts a text: a frozen network with adapters, and a verdict for each place of the text."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dlmctl.models.adapters import Adapters

# Of the states that the verdicts are read off, in training.
DROPOUT = 0.1
# The verdict of a place before training: a text of ten words is then as likely sound as not.
FIRST = 3.0
# The least that stands against any text, in nats, so that its odds are a number.
LEAST = 1e-6
# What is held against a text: its mean nats, those of its worst word, rare words that come again, and its positions.
FIGURES = 4
# One step of an optimiser moves these by so many times what it moves a weight of the adapters: there are few of them,
# and they are not small.
STRIDE = 16.0


class Acceptability(Adapters):
    """The log-odds that a reader accepts a text.

    A text is sound if each of its places is: with the verdict s_i of place i, p = prod_i sigmoid(s_i). To the log-odds
    of that comes ``bias``, less ``STRIDE * share`` of each figure by which the text exceeds what is ``typical``: its
    nats under a scorer, those of its worst word, words that come again, and its positions, each ``[4]``. The network
    is not part of this module, and its weights stay as they are.

    Args:
        network: that reads a text both ways, from ids ``[B, L]`` to states ``[B, L, H]``.
        width: H.
        rank: columns of U and rows of D.
    """

    def __init__(self, network: nn.Module, width: int, rank: int) -> None:
        super().__init__(network, rank)
        self.head = nn.Linear(width, 1)
        self.bias, self.share = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(FIGURES))
        self.typical: Tensor
        self.register_buffer("typical", torch.zeros(FIGURES))
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, FIRST)

    def forward(
        self, network: nn.Module, weights: Mapping[str, Tensor], ids: Tensor, lengths: Tensor, figures: Tensor
    ) -> Tensor:
        """The log-odds ``[B]``.

        Args:
            weights: as ``weights`` gives them; none for a network that has them (``merged``).
            ids: ``[B, L]``; lengths: how many positions of each row are text, START and END among them ``[B]``.
            figures: of each text ``[B, 3]``; see ``metrics.fluency.figures_of``.
        """
        inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        states = functional_call(network, dict(weights), (ids,), {"attention_mask": inside})
        verdicts = self.head(F.dropout(states.float(), DROPOUT, self.training))[..., 0]
        log_p = -(F.softplus(-verdicts) * inside).sum(1).clamp(min=LEAST)
        beyond = torch.cat([figures, lengths[:, None]], 1).float() - self.typical
        held = (beyond * self.share).sum(1) * STRIDE  # a product of matrices would be in half precision under autocast
        return log_p - torch.log(-torch.expm1(log_p)) + self.bias - held
