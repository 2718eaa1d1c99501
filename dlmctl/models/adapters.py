"""Low-rank adapters for the matrices of a frozen network (LoRA, Hu et al. 2021).

Each matrix W of a linear layer gets a product of two narrow ones, and the layer computes with W + U D.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

# Upper limit; no adapter needs as much.
MOST_RANK = 1024


class Adapters(nn.Module):
    """U and D for each matrix of a network, which is not part of this module and stays frozen.

    Args:
        network: the network whose linear layers are adapted.
        rank: columns of U and rows of D.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        matrices = adapted_matrices(network)
        self.names = list(matrices)
        self.up = nn.ParameterList(torch.zeros(len(matrix), rank) for matrix in matrices.values())
        self.down = nn.ParameterList(
            torch.randn(rank, matrix.shape[1]) / math.sqrt(matrix.shape[1]) for matrix in matrices.values()
        )

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The adapted matrices W + U D, by name."""
        matrices = adapted_matrices(network)
        return {name: matrices[name] + up @ down for name, up, down in zip(self.names, self.up, self.down, strict=True)}


def merge_adapters(network: nn.Module, adapters: Adapters) -> nn.Module:
    """A copy of a network with the adapted matrices; all other weights are shared with the network.

    Swapping the weights of the network temporarily would affect other threads that use it.
    """
    weights = {name: nn.Parameter(matrix.detach(), False) for name, matrix in adapters.weights(network).items()}
    memo = {id(parameter): weights.get(name, parameter) for name, parameter in network.named_parameters()}
    return copy.deepcopy(network, memo | {id(buffer): buffer for buffer in network.buffers()})


def adapted_matrices(network: nn.Module) -> dict[str, Tensor]:
    """The matrices to adapt, by name: the weights ``[out, in]`` of all linear layers."""
    return {f"{name}.weight": layer.weight for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
