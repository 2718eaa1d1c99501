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
