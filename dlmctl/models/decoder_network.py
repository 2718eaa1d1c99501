"""Decoders of ``transformers`` with the attention of diffusion models: to all positions, or by blocks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.models.block_attention import attended_by_blocks, positions_of
from dlmctl.models.prefix import Prefix
from dlmctl.models.transformers_network import TransformersNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DecoderNetwork(TransformersNetwork):
    """A ``...ForCausalLM`` without its causal mask (Nie et al. 2025; Ye et al. 2025), or with one over blocks.

    Args:
        network: has ``model`` and ``lm_head``, like ``LlamaForCausalLM`` and ``Qwen2ForCausalLM``.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__(network)
        # transformers 5 renames the argument.
        parameters = inspect.signature(network.model.forward).parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"

    def hidden(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        block: int | None = None,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Hidden states ``[B, S - P, H]`` of ``ids [B, S]`` after the P positions of the prefix.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given. Positions are counted
                as by ``positions_of``.
            block: positions per block; then a position attends to its own block and to those before it (Arriola et al.
                2025). To all positions if not given.
            prefix: what is kept of the first positions, with ``block``.
        """
        attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        positions, kept = positions_of(attended), 0 if prefix is None else prefix.get_seq_length()
        # A mask with four dimensions is used unchanged; without one, these networks would build a causal mask.
        if block is None:
            full_mask = attended[:, None, None].expand(-1, -1, ids.shape[1] - kept, -1)
        else:
            full_mask = attended_by_blocks(attended, block, kept)
        embedded = F.embedding(ids[:, kept:].to(self.table.device), self.table)
        hidden: Tensor = self.network.model(
            inputs_embeds=embedded,
            attention_mask=full_mask,
            position_ids=positions[:, kept:],
            use_cache=False,
            **({} if prefix is None else {self.cache_name: prefix}),
        ).last_hidden_state
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        scores: Tensor = self.network.lm_head(hidden)
        return scores
