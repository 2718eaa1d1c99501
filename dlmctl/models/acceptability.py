"""Predicts whether a reader accepts a text: a frozen network with adapters, and a verdict for each position."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dlmctl.models.adapters import Adapters

# Dropout on the states before the verdicts, in training.
DROPOUT = 0.1
# The verdict of a position before training: with it, a text of ten words is about as likely sound as not.
INITIAL_VERDICT = 3.0
# The least -log p of a text, in nats, so that its odds are finite.
LEAST_NATS = 1e-6
# Features that count against a text: mean nats, nats of its worst word, repeated rare words, number of positions.
FIGURES = 4
# The factor by which an optimiser step moves the feature weights further than those of the adapters: there are few of
# them, and they are not small.
STRIDE = 16.0


class Acceptability(Adapters):
    """The log-odds that a reader accepts a text.

    A text is sound if each of its positions is: with the verdict s_i of position i, p = prod_i sigmoid(s_i). To the
    log-odds of p the module adds ``bias``, and subtracts ``STRIDE * share`` times the excess of four figures over
    ``typical``: nats under a scorer, nats of the worst word, repeated words, and positions; ``share`` and ``typical``
    are ``[4]``. The network is not part of this module, and its weights do not change.

    Args:
        network: a bidirectional encoder from ids ``[B, L]`` to states ``[B, L, H]``.
        width: H.
        rank: columns of U and rows of D, as in ``Adapters``.
    """

    def __init__(self, network: nn.Module, width: int, rank: int) -> None:
        super().__init__(network, rank)
        self.head = nn.Linear(width, 1)
        self.bias, self.share = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(FIGURES))
        self.typical: Tensor
        self.register_buffer("typical", torch.zeros(FIGURES))
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, INITIAL_VERDICT)

    def forward(
        self, network: nn.Module, weights: Mapping[str, Tensor], ids: Tensor, lengths: Tensor, figures: Tensor
    ) -> Tensor:
        """The log-odds ``[B]``.

        Args:
            weights: the adapted matrices from ``weights``; empty for a network that includes them (``merged``).
            ids: ``[B, L]``.
            lengths: ``[B]``, positions of each text, including START and END.
            figures: ``[B, 3]``, of each text; see ``metrics.fluency.figures_of``.
        """
        is_text = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        states = functional_call(network, dict(weights), (ids,), {"attention_mask": is_text})
        verdicts = self.head(F.dropout(states.float(), DROPOUT, self.training))[..., 0]
        log_p = -(F.softplus(-verdicts) * is_text).sum(1).clamp(min=LEAST_NATS)
        excess = torch.cat([figures, lengths[:, None]], 1).float() - self.typical
        penalty = (excess * self.share).sum(1) * STRIDE  # autocast would run a matrix product in half precision
        return log_p - torch.log(-torch.expm1(log_p)) + self.bias - penalty
