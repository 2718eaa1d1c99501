"""The diffusion transformer of SEDD (Lou et al. 2024), MDLM and Duo (Sahoo et al. 2024; 2025), UDLM (Schiff et al.
2024) and BD3LM (Arriola et al. 2025), with the names of their checkpoints.

Blocks of attention and MLP, each shifted, scaled and gated by an embedding of the noise level (Peebles and Xie 2023).
The published models of MDLM and BD3LM are not conditioned on it: theirs is always 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.models.attention import attention
from dlmctl.models.block_attention import attended_by_blocks
from dlmctl.models.llama import rotated, turns
from dlmctl.models.numerics import at_least_float32
from dlmctl.models.prefix import Prefix

# Number of sinusoidal features of a noise level; base of the rotary frequencies.
TIME_CHANNELS, ROPE_BASE = 256, 1e4
# At time t SEDD and MDLM mask each token with probability (1 - NOISE_EPSILON) t; training drew t from
# [NOISE_EPSILON, 1].
NOISE_EPSILON = 1e-3


class DiTConfig(BaseModel):
    """Sizes of the transformer."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(gt=4, description="rows of the embedding table, MASK included")
    hidden: int = Field(gt=0, description="width of the residual stream")
    layers: int = Field(gt=0, description="number of blocks")
    heads: int = Field(gt=0, description="attention heads")
    condition: int | None = Field(
        gt=0, description="width of the embedding of the noise level; None: without noise level"
    )
    mask_id: int | None = Field(
        default=None, ge=0, description="the id of MASK, if its share in a row sets the noise level; None: it is 0"
    )


class ScaleNorm(nn.Module):
    """LayerNorm with a scale but no bias, computed in at least float32."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        return (F.layer_norm(wide, wide.shape[-1:]) * self.weight).to(dtype=x.dtype)


class NoiseLevel(nn.Module):
    """Embedding of noise levels: ``[B]`` to ``[B, condition]``."""

    def __init__(self, condition: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_CHANNELS, condition), nn.SiLU(), nn.Linear(condition, condition))

    def forward(self, sigma: Tensor) -> Tensor:
        half = TIME_CHANNELS // 2
        exponents = torch.arange(half, device=sigma.device, dtype=torch.float32)
        angles = sigma[:, None] * torch.exp(-math.log(1e4) / half * exponents)
        embedded: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], -1).to(next(self.mlp.parameters()).dtype))
        return embedded


class DiTBlock(nn.Module):
    """x + gate attention(norm(x) (1 + scale) + shift), and the same with an MLP.

    Args:
        index: the number of the block in the network.
    """

    def __init__(self, config: DiTConfig, index: int) -> None:
        super().__init__()
        hidden, self.heads, self.index = config.hidden, config.heads, index
        self.norm1 = ScaleNorm(hidden)
        self.attn_qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.attn_out = nn.Linear(hidden, hidden, bias=False)
        self.norm2 = ScaleNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU("tanh"), nn.Linear(4 * hidden, hidden))
        if config.condition is not None:
            self.adaLN_modulation = nn.Linear(config.condition, 6 * hidden)

    def forward(
        self,
        x: Tensor,
        level: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """``x [B, L, H]``; ``level [B, condition]``, of all rows ``[1, condition]``, or None; ``rotation`` as for
        ``rotated``; ``mask`` broadcasts to ``[B, 1, L, S]``; ``prefix`` has the first S - L positions."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self._modulation(level)
        batch, length, hidden = x.shape
        qkv = self.attn_qkv(self.norm1(x) * (1 + scale) + shift)
        qkv = qkv.view(batch, length, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        (q, k), v = rotated(qkv[:2], *rotation), qkv[2]
        if prefix is not None:
            k, v = prefix.update(k, v, self.index)
        attended = attention(q, k, v, mask)
        x = x + gate * self.attn_out(attended.transpose(1, 2).reshape(batch, length, hidden))
        out: Tensor = x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)
        return out

    def _modulation(self, level: Tensor | None) -> Sequence[Tensor | float]:
        """Shift, scale and gate of attention and MLP; those that change nothing without a noise level."""
        return (0.0, 0.0, 1.0) * 2 if level is None else self.adaLN_modulation(level)[:, None].chunk(6, -1)


class OutputLayer(nn.Module):
    """The output layer: hidden states to token scores."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm_final = ScaleNorm(config.hidden)
        self.linear = nn.Linear(config.hidden, config.rows)
        if config.condition is not None:
            self.adaLN_modulation = nn.Linear(config.condition, 2 * config.hidden)

    def normalised(self, x: Tensor, level: Tensor | None) -> Tensor:
        """What the scores are a linear function of: ``x [B, L, H]`` at the ``level`` of each row or of all."""
        states: Tensor = self.norm_final(x)
        if level is not None:
            shift, scale = self.adaLN_modulation(level)[:, None].chunk(2, -1)
            states = states * (1 + scale) + shift
        return states

    def forward(self, states: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of normalised states ``[..., H]``."""
        scores: Tensor = self.linear(states)
        return scores


class Table(nn.Module):
    """Token embeddings."""

    def __init__(self, rows: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(rows, hidden))


def level_of_masks(ids: Tensor, mask: Tensor | None, mask_id: int) -> Tensor:
    """The noise level ``[B]`` at which the share of MASK in each row is the expected one, 1 - exp(-sigma).

    Clipped to the levels of training.

    Args:
        ids: ``[B, S]``.
        mask: bool ``[B, S]``, true for the positions that count; all if not given.
    """
    counted = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    share = ((ids == mask_id) & counted).sum(1) / counted.sum(1)
    most = 1 - NOISE_EPSILON
    return -torch.log1p(-share.clamp(most * NOISE_EPSILON, most))


class DiT(nn.Module):
    """The network of SEDD, MDLM, BD3LM, UDLM and Duo: hidden states of tokens, and their scores.

    Raises:
        ValueError: the number of heads does not divide the width into even parts.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.hidden % (2 * config.heads):
            raise ValueError("the number of heads does not divide the width into even parts")
        self.config = config
        self.vocab_embed = Table(config.rows, config.hidden)
        if config.condition is not None:
            self.sigma_map = NoiseLevel(config.condition)
        self.blocks = nn.ModuleList(DiTBlock(config, index) for index in range(config.layers))
        self.output_layer = OutputLayer(config)

    @property
    def table(self) -> Tensor:
        """The input embeddings ``[rows, H]``."""
        return self.vocab_embed.embedding

    def hidden(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        block: int | None = None,
        prefix: Prefix | None = None,
        noise_level: Tensor | None = None,
    ) -> Tensor:
        """Hidden states ``[B, S - P, H]`` of ``ids [B, S]`` after the P positions of the prefix.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given.
            block: positions per block; then a position attends to its own block and to those before it (Arriola et al.
                2025). To all positions if not given.
            prefix: what is kept of the first positions, with ``block``.
            noise_level: sigma of each row ``[B]``; if not given, what the masks say, or 0.
        """
        kept = 0 if prefix is None else prefix.get_seq_length()
        x, level = self.table[ids[:, kept:]], self._embedded_level(ids, mask, noise_level)
        rotation = turns(self.config.hidden // self.config.heads, ids.shape[1], ROPE_BASE, ids.device)
        rotation = rotation[0][kept:], rotation[1][kept:]
        if block is not None:
            attended = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
            attention_mask: Tensor | None = attended_by_blocks(attended, block, kept)
        else:
            attention_mask = None if mask is None else mask[:, None, None]
        for layer in self.blocks:
            x = layer(x, level, rotation, attention_mask, prefix)
        return self.output_layer.normalised(x, level)

    def _embedded_level(self, ids: Tensor, mask: Tensor | None, sigma: Tensor | None) -> Tensor | None:
        """The embedding of the noise level as the blocks take it, ``[B, condition]`` or ``[1, condition]``."""
        if self.config.condition is None:
            return None
        if sigma is None and self.config.mask_id is not None:
            sigma = level_of_masks(ids, mask, self.config.mask_id)
        return F.silu(self.sigma_map(torch.zeros(1, device=ids.device) if sigma is None else sigma))

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        scores: Tensor = self.output_layer(hidden)
        return scores
