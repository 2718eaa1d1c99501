"""The transformer denoiser: a bidirectional encoder with learned positions and an additive time embedding.

With ``norm_first: false`` and GELU it is the BERT encoder of Diffusion-LM (Li et al. 2022, section 4), weight
for weight; with ``norm_first: true`` it is the pre-norm form that trains faster and at higher learning rates.
"""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dlmctl.models.attention import attention
from dlmctl.models.interface import Conditioning
from dlmctl.models.packing import Packing

# Larger than in any existing model: a size above these is a mistake, or needs more memory than any machine has.
MAX_WIDTH = 65_536
MAX_LAYERS = 512
MAX_LENGTH = 65_536


class TransformerConfig(BaseModel):
    """Sizes of a transformer."""

    model_config = ConfigDict(extra="forbid")

    hidden: int = Field(default=768, gt=0, le=MAX_WIDTH, description="width of the residual stream")
    layers: int = Field(default=12, gt=0, le=MAX_LAYERS, description="number of blocks")
    heads: int = Field(default=12, gt=0, le=MAX_WIDTH, description="attention heads; must divide hidden")
    feedforward: int | None = Field(
        default=None, gt=0, le=16 * MAX_WIDTH, description="inner width of the MLP; 4 x hidden if not given"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout probability, in training only")
    norm_first: bool = Field(default=True, description="LayerNorm before (true) or after (false, BERT) each sublayer")
    max_length: int = Field(default=512, gt=0, le=MAX_LENGTH, description="number of learned positions")
    time_channels: int = Field(default=128, gt=0, le=MAX_WIDTH, description="width of the sinusoidal time features")
    checkpointing: bool = Field(default=False, description="recompute activations in the backward pass to save memory")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden ({self.hidden})")
        return self

    @property
    def time_width(self) -> int:
        """Width of the time embedding, to which the embedding of a label is added."""
        return self.hidden

    def summary(self) -> str:
        """The sizes in words."""
        return f"{self.layers} layers of width {self.hidden}, {self.heads} heads"


def sinusoid(t: Tensor, channels: int) -> Tensor:
    """Sinusoidal features of times ``t [batch]``: ``[batch, channels]``, cosines first (Ho et al. 2020)."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    features = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(features, (0, channels % 2))


class TimeEmbedding(nn.Sequential):
    """The time embedding of the denoisers: sinusoid, Linear, SiLU, Linear (Li et al. 2022), plus that of a label."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, width))
        self.channels = channels

    def forward(self, t: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """The embedding ``[B, width]`` of ``t [B]`` in 0..1000."""
        time = sinusoid(t, self.channels).to(next(self.parameters()).dtype)
        time = self[2](self[1](self[0](time)))
        return time if conditioning is None or conditioning.shift is None else time + conditioning.shift


class CrossAttention(nn.Module):
    """Attention of each position to a memory ``[B, S, hidden]``; its output is initially zero."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.q = nn.Linear(config.hidden, config.hidden)
        self.kv = nn.Linear(config.hidden, 2 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """``h [B, L, hidden]``; ``mask [B, S]`` is true for the memory positions to attend to."""
        batch, length, hidden = h.shape
        q = self.q(self.norm(h)).view(batch, length, self.heads, hidden // self.heads).transpose(1, 2)
        k, v = self.kv(memory).view(batch, -1, 2, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = attention(q, k, v, mask[:, None, None], dropout)
        return F.dropout(self.out(attended.transpose(1, 2).reshape(batch, length, hidden)), self.dropout, self.training)


class Block(nn.Module):
    """Self-attention and an MLP, each with a residual connection and a LayerNorm.

    With ``cross_attention`` there is attention to a memory between the two, always in pre-norm form.
    """

    def __init__(self, config: TransformerConfig, *, cross_attention: bool = False) -> None:
        super().__init__()
        inner = config.feedforward or 4 * config.hidden
        self.heads, self.dropout, self.norm_first = config.heads, config.dropout, config.norm_first
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.attention_out = nn.Linear(config.hidden, config.hidden)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.mlp_in = nn.Linear(config.hidden, inner)
        self.mlp_out = nn.Linear(inner, config.hidden)
        self.mlp_norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.cross = CrossAttention(config) if cross_attention else None

    def attend(self, h: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, hidden = h.shape
        q, k, v = self.qkv(h).view(batch, length, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        broadcast_mask = mask[:, None, None] if mask is not None and mask.ndim == 2 else mask
        attended = attention(q, k, v, broadcast_mask, self.dropout if self.training else 0.0)
        return self.drop(self.attention_out(attended.transpose(1, 2).reshape(batch, length, hidden)))

    def feed_forward(self, h: Tensor) -> Tensor:
        return self.drop(self.mlp_out(F.gelu(self.mlp_in(h))))

    def drop(self, h: Tensor) -> Tensor:
        return F.dropout(h, self.dropout, self.training)

    def read(self, h: Tensor, memory: Tensor | None, memory_mask: Tensor | None) -> Tensor:
        if self.cross is None or memory is None or memory_mask is None:
            return h
        return h + self.cross(h, memory, memory_mask)

    def forward(
        self, h: Tensor, mask: Tensor | None = None, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """``h [B, L, hidden]``; ``mask [B, L]`` and ``memory_mask [B, S]`` are true for the positions to attend to.

        ``mask`` may also be ``[1, 1, L, L]``, as for ``attention``.
        """
        if self.norm_first:
            h = self.read(h + self.attend(self.attention_norm(h), mask), memory, memory_mask)
            return h + self.feed_forward(self.mlp_norm(h))
        h = self.read(self.attention_norm(h + self.attend(h, mask)), memory, memory_mask)
        return self.mlp_norm(h + self.feed_forward(h))


class LatentEncoder(nn.Module):
    """Blocks over a latent: from ``[batch, length, in_dim]`` and times ``[batch]`` to ``[batch, length, hidden]``.

    The trunk of the denoiser and of the control classifiers.
    """

    def __init__(self, config: TransformerConfig, in_dim: int, *, cross_attention: bool = False) -> None:
        super().__init__()
        self.config = config
        self.time = TimeEmbedding(config.time_channels, config.time_width)
        self.input = nn.Sequential(nn.Linear(in_dim, config.hidden), nn.Tanh(), nn.Linear(config.hidden, config.hidden))
        self.positions = nn.Embedding(config.max_length, config.hidden)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.input_norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.blocks = nn.ModuleList(Block(config, cross_attention=cross_attention) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.hidden) if config.norm_first else nn.Identity()

    def forward(
        self, x: Tensor, t: Tensor, conditioning: Conditioning | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``mask [B, L]`` is true for the positions to attend to, if texts of different lengths share a batch."""
        memory, memory_mask = (None, None) if conditioning is None else (conditioning.memory, conditioning.mask)
        h = self.input(x) + self.time(t, conditioning)[:, None] + self.positions.weight[: x.shape[1]]
        h = F.dropout(self.input_norm(h), self.config.dropout, self.training)
        packing = Packing.of(self, h) if mask is None and memory is None else None
        if packing is not None:
            h, mask = packing.pack(h), packing.mask(h)
        for block in self.blocks:
            if self.config.checkpointing and self.training:
                h = checkpoint(block, h, mask, memory, memory_mask, use_reentrant=False)
            else:
                h = block(h, mask, memory, memory_mask)
        return self.final_norm(h if packing is None else packing.unpack(h))


class TransformerDenoiser(nn.Module):
    """LatentEncoder with the output head Linear, Tanh, Linear down to ``out_dim``."""

    def __init__(self, config: TransformerConfig, in_dim: int, out_dim: int, *, cross_attention: bool = False) -> None:
        super().__init__()
        self.encoder = LatentEncoder(config, in_dim, cross_attention=cross_attention)
        self.output = nn.Sequential(
            nn.Linear(config.hidden, config.hidden), nn.Tanh(), nn.Linear(config.hidden, out_dim)
        )

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        conditioning: Conditioning | None = None,
        mask: Tensor | None = None,
        features: bool = False,
    ) -> Tensor:
        """From ``x [batch, length, in_dim]`` and ``t [batch]`` in 0..1000 to ``[batch, length, out_dim]``.

        With ``features``, the input of the last layer, which is linear: ``[batch, length, hidden]``.
        """
        output = self.output[:-1] if features else self.output
        return output(self.encoder(x, t, conditioning, mask))
