"""What networks of ``transformers`` share as networks of diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformersNetwork(nn.Module):
    """Base of the classes that run a network of ``transformers``.

    Args:
        network: the network with its head.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    @property
    def table(self) -> Tensor:
        """The input embeddings ``[rows, E]``."""
        weight: Tensor = self.network.get_input_embeddings().weight
        return weight


def positions_of(mask: Tensor) -> Tensor:
    """The number of each position ``[B, S]`` from the first of its row that ``mask [B, S]`` attends to, 0 before it: so
    padding on the left has no effect."""
    return (mask.cumsum(1) - 1).clamp(min=0)
