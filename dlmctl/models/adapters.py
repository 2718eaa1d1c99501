"""Low-rank adapters for the matrices of a frozen network (LoRA, Hu et al. 2021).

Beside each matrix W of a linear layer stands a product of two narrow ones, and the layer computes with W + U D.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

# More than any adapter needs.
MOST_RANK = 1024


class Adapters(nn.Module):
    """U and D for each matrix of a network, which is not part of this module and keeps its weights.

    Args:
        network: whose linear layers are adapted.
        rank: columns of U and rows of D.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        matrices = adapted(network)
        self.names = list(matrices)
        self.up = nn.ParameterList(torch.zeros(len(one), rank) for one in matrices.values())
        self.down = nn.ParameterList(
            torch.randn(rank, one.shape[1]) / math.sqrt(one.shape[1]) for one in matrices.values()
        )

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The matrices that the network computes with, by name."""
        matrices = adapted(network)
        return {name: matrices[name] + up @ down for name, up, down in zip(self.names, self.up, self.down, strict=True)}


def merged(network: nn.Module, adapters: Adapters) -> nn.Module:
    """A copy of a network that computes with adapted matrices; all other weights are those of the network.

    To lend a network other weights for a moment would disturb who reads with it in another thread.
    """
    weights = {name: nn.Parameter(one.detach(), False) for name, one in adapters.weights(network).items()}
    kept = {id(one): weights.get(name, one) for name, one in network.named_parameters()}
    return copy.deepcopy(network, kept | {id(one): one for one in network.buffers()})


def adapted(network: nn.Module) -> dict[str, Tensor]:
    """The matrices that have adapters, by name: those of all linear layers ``[out, in]``."""
    return {f"{name}.weight": one.weight for name, one in network.named_modules() if isinstance(one, nn.Linear)}
