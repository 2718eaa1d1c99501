"""Causal networks of transformers as diffusion models use them: every position attends to every other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FullAttention(nn.Module):
    """A ``...ForCausalLM`` read without its causal mask (Nie et al. 2025; Ye et al. 2025).

    Args:
        network: with ``model`` and ``lm_head``, such as ``LlamaForCausalLM`` and ``Qwen2ForCausalLM``.
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
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given. Positions count from a
                row's first attended one, so that what fills a row up at its left end changes nothing.
        """
        attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        # Of four dimensions it is taken as it is; without one these networks would make a causal one.
        full = attended[:, None, None].expand(-1, -1, ids.shape[1], -1)
        positions = (attended.cumsum(1) - 1).clamp(min=0)
        embedded = F.embedding(ids.to(self.table.device), self.table)
        found: Tensor = self.network.model(
            inputs_embeds=embedded, attention_mask=full, position_ids=positions, use_cache=False
        ).last_hidden_state
        return found

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        scores: Tensor = self.network.lm_head(hidden)
        return scores
