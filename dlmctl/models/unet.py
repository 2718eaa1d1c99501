"""The convolutional U-Net of improved diffusion (Nichol and Dhariwal 2021), over grids of one or two dimensions.

Residual blocks whose group norms are scaled and shifted by the time embedding; self-attention at selected levels and in
the middle. Weight for weight, these are the networks ``1d-unet`` and ``conv-unet`` of Diffusion-LM.
"""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from dlmctl.models.attention import attention
from dlmctl.models.interface import Conditioning
from dlmctl.models.transformer import MAX_WIDTH, TimeEmbedding
from dlmctl.models.ushape import UShape, UShapeConfig

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}


class UNetConfig(UShapeConfig):
    """Sizes of a convolutional U-Net."""

    attention_levels: list[NonNegativeInt] = Field(
        default=[0], description="levels with attention, the finest is 0; the middle always has it"
    )
    heads: PositiveInt = Field(
        default=4, le=MAX_WIDTH, description="attention heads; must divide the widths of the levels with attention"
    )

    @model_validator(mode="after")
    def _attention_fits(self) -> Self:
        deepest = len(self.multipliers) - 1
        for level in {*self.attention_levels, deepest}:
            if level > deepest:
                raise ValueError(f"attention_levels names level {level}, but the last level is {deepest}")
            if self.widths[level] % self.heads:
                raise ValueError(f"heads ({self.heads}) must divide the width of level {level} ({self.widths[level]})")
        return self


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups if the width allows it, else with the most that leave several channels in a group."""
    groups = next((groups for groups in (32, 16, 8, 4, 2) if channels % groups == 0 and channels > groups), 1)
    return nn.GroupNorm(groups, channels)


def convolution(dims: int, inside: int, outside: int, *, stride: int = 1, zero: bool = False) -> nn.Module:
    """A convolution of width 3 that keeps the grid, or halves its sides with ``stride`` 2; ``zero``: zero weights."""
    layer = CONVOLUTIONS[dims](inside, outside, 3, stride=stride, padding=1)
    if zero:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return layer


class ResidualBlock(nn.Module):
    """Two convolutions, modulated by the time in between, and self-attention after them if ``attends``."""

    def __init__(self, dims: int, inside: int, outside: int, time: int, config: UNetConfig, attends: bool) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.first_norm, self.first = group_norm(inside), convolution(dims, inside, outside)
        self.time = nn.Linear(time, 2 * outside)
        # Initially the block is only its shortcut.
        self.second_norm, self.second = group_norm(outside), convolution(dims, outside, outside, zero=True)
        self.shortcut = nn.Identity() if inside == outside else CONVOLUTIONS[dims](inside, outside, 1)
        self.attention = GridAttention(outside, config.heads) if attends else nn.Identity()

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """From ``h [B, inside, *grid]`` and ``time [B, T]`` to ``[B, outside, *grid]``."""
        residual = self.first(F.silu(self.first_norm(h)))
        broadcast_shape = (len(h), -1, *[1] * (h.dim() - 2))
        scale, shift = self.time(F.silu(time)).reshape(broadcast_shape).chunk(2, dim=1)
        residual = F.silu(self.second_norm(residual) * (1 + scale) + shift)
        residual = self.second(F.dropout(residual, self.dropout, self.training))
        return self.attention(self.shortcut(h) + residual)


class GridAttention(nn.Module):
    """Self-attention among all cells of a grid, with a residual connection."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv, self.output = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)
        for parameter in self.output.parameters():  # initially attention adds nothing
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:
        batch, channels = h.shape[:2]
        # The q, k and v of each head are adjacent.
        qkv = self.qkv(self.norm(h).flatten(2)).view(batch, self.heads, 3, channels // self.heads, -1)
        q, k, v = qkv.transpose(3, 4).unbind(2)
        attended = attention(q, k, v).transpose(2, 3).reshape(batch, channels, -1)
        return h + self.output(attended).reshape(h.shape)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by 2 in every dimension, then a convolution."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.convolution = convolution(dims, channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        return self.convolution(F.interpolate(h, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """A U-Net over a grid of ``dims`` dimensions whose sides are multiples of ``config.factor``."""

    def __init__(self, config: UNetConfig, in_dim: int, out_dim: int, dims: int) -> None:
        super().__init__()
        self.config = config
        time = config.time_width
        self.time = TimeEmbedding(config.channels, time)
        self.input = convolution(dims, in_dim, config.channels)
        self.body = UShape(
            config,
            config.channels,
            block=lambda inside, outside, attends: ResidualBlock(dims, inside, outside, time, config, attends),
            shrink=lambda width: convolution(dims, width, width, stride=2),
            grow=lambda width: Upsample(dims, width),
            attends=config.attention_levels,
            axis=1,
        )
        last = config.widths[0]
        self.output = nn.Sequential(group_norm(last), nn.SiLU(), convolution(dims, last, out_dim, zero=True))

    def over_grid(self, x: Tensor, t: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """From ``x [B, in_dim, *grid]`` and ``t [B]`` in 0..1000 to ``[B, out_dim, *grid]``."""
        return self.output(self.body(self.input(x), self.time(t, conditioning)))
