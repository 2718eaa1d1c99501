"""Encoders of ``transformers`` with a head that predicts masked tokens, such as ``BertForMaskedLM``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from dlmctl.models.block_attention import positions_of
from dlmctl.models.transformers_network import TransformersNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MaskedEncoder(TransformersNetwork):
    """A ``...ForMaskedLM`` as the network of a diffusion model.

    Args:
        network: its base model returns hidden states.
        head: the names of its modules that turn hidden states into scores, in turn.
        first_position: the number of the first position: RoBERTa and others count from their padding id on.
    """

    def __init__(self, network: PreTrainedModel, head: Sequence[str], first_position: int) -> None:
        super().__init__(network)
        self.head_names, self.first_position = tuple(head), first_position

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, S, H]`` of ``ids [B, S]``.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given. Positions are counted
                as by ``positions_of``, from ``first_position`` on.
        """
        inputs: dict[str, Tensor] = {}
        if mask is not None:
            inputs = {"attention_mask": mask.long(), "position_ids": positions_of(mask) + self.first_position}
        hidden: Tensor = self.network.base_model(input_ids=ids, **inputs).last_hidden_state
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        for name in self.head_names:
            hidden = getattr(self.network, name)(hidden)
        return hidden
