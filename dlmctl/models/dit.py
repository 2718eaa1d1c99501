"""The diffusion transformer of MDLM (Sahoo et al. 2024; Peebles and Xie 2023), with the names of its checkpoints.

Blocks of attention and MLP, each shifted, scaled and gated by an embedding of the noise level. The published models
of MDLM are not conditioned on time: their noise level is always 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.models.attention import attention
from dlmctl.models.llama import rotated, turns
from dlmctl.models.numerics import at_least_float32

# Number of sinusoidal features of a noise level; base of the rotary frequencies.
TIME_CHANNELS, ROPE_BASE = 256, 1e4


class DiTConfig(BaseModel):
    """Sizes of the transformer."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(gt=4, description="rows of the embedding table, MASK included")
    hidden: int = Field(gt=0, description="width of the residual stream")
    layers: int = Field(gt=0, description="number of blocks")
    heads: int = Field(gt=0, description="attention heads")
    condition: int = Field(gt=0, description="width of the embedding of the noise level")


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
    """x + gate attention(norm(x) (1 + scale) + shift), and the same with an MLP."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden, self.heads = config.hidden, config.heads
        self.norm1 = ScaleNorm(hidden)
        self.attn_qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.attn_out = nn.Linear(hidden, hidden, bias=False)
        self.norm2 = ScaleNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU("tanh"), nn.Linear(4 * hidden, hidden))
        self.adaLN_modulation = nn.Linear(config.condition, 6 * hidden)

    def forward(self, x: Tensor, level: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """``x [B, L, H]``; ``level [B, condition]``, or of all rows ``[1, condition]``; ``rotation`` as for
        ``rotated``; ``mask [B, 1, 1, L]``."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(level)[:, None].chunk(6, -1)
        batch, length, hidden = x.shape
        qkv = self.attn_qkv(self.norm1(x) * (1 + scale) + shift)
        qkv = qkv.view(batch, length, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotated(qkv[:2], *rotation)
        attended = attention(q, k, qkv[2], mask)
        x = x + gate * self.attn_out(attended.transpose(1, 2).reshape(batch, length, hidden))
        out: Tensor = x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)
        return out


class OutputLayer(nn.Module):
    """The output layer: hidden states to token scores."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm_final = ScaleNorm(config.hidden)
        self.linear = nn.Linear(config.hidden, config.rows)
        self.adaLN_modulation = nn.Linear(config.condition, 2 * config.hidden)

    def normalised(self, x: Tensor, level: Tensor) -> Tensor:
        """What the scores are a linear function of: ``x [B, L, H]`` at the ``level`` of each row or of all."""
        shift, scale = self.adaLN_modulation(level)[:, None].chunk(2, -1)
        states: Tensor = self.norm_final(x) * (1 + scale) + shift
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


class DiT(nn.Module):
    """The network of MDLM: hidden states of tokens, and their scores.

    Raises:
        ValueError: the number of heads does not divide the width into even parts.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        if config.hidden % (2 * config.heads):
            raise ValueError("the number of heads does not divide the width into even parts")
        self.config = config
        self.vocab_embed = Table(config.rows, config.hidden)
        self.sigma_map = NoiseLevel(config.condition)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.layers))
        self.output_layer = OutputLayer(config)

    @property
    def table(self) -> Tensor:
        """The input embeddings ``[rows, H]``."""
        return self.vocab_embed.embedding

    def hidden(self, ids: Tensor, mask: Tensor | None = None, noise_level: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, S, H]`` of ``ids [B, S]``.

        Args:
            mask: bool ``[B, S]``, true for the positions that are attended to; all if not given.
            noise_level: sigma of each row ``[B]``, at which alphabar is exp(-sigma); 0 if not given.
        """
        sigma = torch.zeros(1, device=ids.device) if noise_level is None else noise_level
        x, level = self.table[ids], F.silu(self.sigma_map(sigma))
        rotation = turns(self.config.hidden // self.config.heads, ids.shape[1], ROPE_BASE, ids.device)
        attention_mask = None if mask is None else mask[:, None, None]
        for block in self.blocks:
            x = block(x, level, rotation, attention_mask)
        states: Tensor = self.output_layer.normalised(x, level)
        return states

    def head(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., rows]`` of hidden states ``[..., H]``."""
        scores: Tensor = self.output_layer(hidden)
        return scores
