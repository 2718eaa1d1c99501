"""Whether a reader accepts a text: a frozen network with low-rank adapters, and a verdict for each place of the text.

The adapters are those of LoRA (Hu et al. 2021): beside each matrix W of a linear layer stands a product of two narrow
ones, and the layer computes with W + U D.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

# Of the states that the verdicts are read off, in training.
DROPOUT = 0.1
# The verdict of a place before training: a text of ten words is then as likely sound as not.
FIRST = 3.0
# The least that stands against any text, in nats, so that its odds are a number.
LEAST = 1e-6


class Acceptability(nn.Module):
    """The log-odds that a reader accepts a text.

    A text is sound if each of its places is: with the verdict s_i of place i, p = prod_i sigmoid(s_i). To the log-odds
    of that comes what a scorer's figures say, ``bias`` - ``share`` times the text's flaws. The network is not part of
    this module, and its weights stay as they are.

    Args:
        network: that reads a text both ways, from ids ``[B, L]`` to states ``[B, L, H]``.
        width: H.
        rank: columns of U and rows of D.
    """

    def __init__(self, network: nn.Module, width: int, rank: int) -> None:
        super().__init__()
        matrices = adapted(network)
        self.names = list(matrices)
        self.up = nn.ParameterList(torch.zeros(len(one), rank) for one in matrices.values())
        self.down = nn.ParameterList(
            torch.randn(rank, one.shape[1]) / math.sqrt(one.shape[1]) for one in matrices.values()
        )
        self.head = nn.Linear(width, 1)
        self.bias, self.share = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, FIRST)

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The matrices that the network computes with, by name."""
        matrices = adapted(network)
        return {name: matrices[name] + up @ down for name, up, down in zip(self.names, self.up, self.down, strict=True)}

    def forward(
        self, network: nn.Module, weights: Mapping[str, Tensor], ids: Tensor, lengths: Tensor, flaws: Tensor
    ) -> Tensor:
        """The log-odds ``[B]``.

        Args:
            weights: as ``weights`` gives them; none for a network that has them (``merged``).
            ids: ``[B, L]``; lengths: how many positions of each row are text, START and END among them ``[B]``.
            flaws: of each text, in nats ``[B]``; see ``metrics.fluency.flaws``.
        """
        inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        states = functional_call(network, dict(weights), (ids,), {"attention_mask": inside})
        verdicts = self.head(F.dropout(states.float(), DROPOUT, self.training))[..., 0]
        log_p = -(F.softplus(-verdicts) * inside).sum(1).clamp(min=LEAST)
        return log_p - torch.log(-torch.expm1(log_p)) + self.bias - self.share * flaws


def merged(network: nn.Module, judge: Acceptability) -> nn.Module:
    """A copy of a network that computes with the matrices of a judge; all other weights are those of the network.

    To lend a network other weights for a moment would disturb who reads with it in another thread.
    """
    weights = {name: nn.Parameter(one.detach(), False) for name, one in judge.weights(network).items()}
    kept = {id(one): weights.get(name, one) for name, one in network.named_parameters()}
    return copy.deepcopy(network, kept | {id(one): one for one in network.buffers()})


def adapted(network: nn.Module) -> dict[str, Tensor]:
    """The matrices that have adapters, by name: those of all linear layers ``[out, in]``."""
    return {f"{name}.weight": one.weight for name, one in network.named_modules() if isinstance(one, nn.Linear)}
