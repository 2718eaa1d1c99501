"""Encoders of ``transformers`` with a head that predicts masked tokens, such as ``BertForMaskedLM``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MaskedEncoder(nn.Module):
    """A ``...ForMaskedLM`` as the network of a diffusion model.

    Args:
        network: its base model returns hidden states.
        head: the names of its modules that turn hidden states into scores, in turn.
        first_position: the number of the first position: RoBERTa and others count from their padding id on.
    """

    def __init__(self, network: PreTrainedModel, head: Sequence[str], first_position: int) -> None:
        super().__init__()
        self.network = network
        self.head_names, self.first_position = tuple(head), first_position

    @property
    def table(self) -> Tensor:
        """The input embeddings ``[rows, E]``."""
        weight: Tensor = self.network.get_input_embeddings().weight
        return weight

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, S, H]`` of ``ids [B, S]``.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given. Positions are counted
                from the first attended one of each row, so padding on the left has no effect.
        """
        inputs: dict[str, Tensor] = {}
        if mask is not None:
            positions = (mask.cumsum(1) - 1).clamp(min=0) + self.first_position
            inputs = {"attention_mask": mask.long(), "position_ids": positions}
        hidden: Tensor = self.network.base_model(input_ids=ids, **inputs).last_hidden_state
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        for name in self.head_names:
            hidden = getattr(self.network, name)(hidden)
        return hidden
