"""Causal networks of ``transformers`` with full attention, as diffusion models use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FullAttention(nn.Module):
    """A ``...ForCausalLM`` without its causal mask (Nie et al. 2025; Ye et al. 2025).

    Args:
        network: has ``model`` and ``lm_head``, like ``LlamaForCausalLM`` and ``Qwen2ForCausalLM``.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    @property
    def table(self) -> Tensor:
        """The input embeddings ``[rows, H]``."""
        weight: Tensor = self.network.get_input_embeddings().weight
        return weight

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, S, H]`` of ``ids [B, S]``.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given. Positions are counted
                from the first attended one of each row, so padding on the left has no effect.
        """
        attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        # A mask with four dimensions is used unchanged; without one, these networks would build a causal mask.
        full_mask = attended[:, None, None].expand(-1, -1, ids.shape[1], -1)
        positions = (attended.cumsum(1) - 1).clamp(min=0)
        embedded = F.embedding(ids.to(self.table.device), self.table)
        hidden: Tensor = self.network.model(
            inputs_embeds=embedded, attention_mask=full_mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        scores: Tensor = self.network.lm_head(hidden)
        return scores
