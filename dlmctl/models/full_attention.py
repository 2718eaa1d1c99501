"""Causal networks of ``transformers`` with full attention, as diffusion models use them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.models.transformers_network import TransformersNetwork, positions_of


class FullAttention(TransformersNetwork):
    """A ``...ForCausalLM`` without its causal mask (Nie et al. 2025; Ye et al. 2025).

    Args:
        network: has ``model`` and ``lm_head``, like ``LlamaForCausalLM`` and ``Qwen2ForCausalLM``.
    """

    def hidden(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, S, H]`` of ``ids [B, S]``.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given. Positions are counted
                as by ``positions_of``.
        """
        attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        # A mask with four dimensions is used unchanged; without one, these networks would build a causal mask.
        full_mask = attended[:, None, None].expand(-1, -1, ids.shape[1], -1)
        embedded = F.embedding(ids.to(self.table.device), self.table)
        hidden: Tensor = self.network.model(
            inputs_embeds=embedded, attention_mask=full_mask, position_ids=positions_of(attended), use_cache=False
        ).last_hidden_state
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        scores: Tensor = self.network.lm_head(hidden)
        return scores
