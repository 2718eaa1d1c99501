"""``trans-unet``: transformer blocks in the shape of a U along the sequence.

Attention at full resolution sees words, at the coarser levels phrases, at a fraction of the cost. The original code
names this architecture, intended with attention only, but cannot build it; here a block is a full block of the
``transformer``.
"""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from dlmctl.models.interface import Conditioning
from dlmctl.models.transformer import MAX_LENGTH, MAX_WIDTH, Block, TimeEmbedding, TransformerConfig
from dlmctl.models.ushape import UShape, UShapeConfig


class TransUNetConfig(UShapeConfig):
    """Sizes of a U of transformer blocks."""

    head_width: PositiveInt = Field(
        default=64, le=MAX_WIDTH, description="width of an attention head; must divide the width of every level"
    )
    max_length: PositiveInt = Field(default=512, le=MAX_LENGTH, description="number of learned positions")

    @model_validator(mode="after")
    def _heads_fill_the_levels(self) -> Self:
        for level, width in enumerate(self.widths):
            if width % self.head_width:
                raise ValueError(f"head_width ({self.head_width}) must divide the width of level {level} ({width})")
        return self


class TimedBlock(nn.Module):
    """A transformer block (pre-norm) after a LayerNorm of the state and the addition of the time embedding.

    Without the norm, states concatenated from two levels would drown out the block's own contribution.
    """

    def __init__(self, inside: int, outside: int, time: int, config: TransUNetConfig) -> None:
        super().__init__()
        heads = outside // config.head_width
        sizes = TransformerConfig(hidden=outside, layers=1, heads=heads, dropout=config.dropout, norm_first=True)
        self.fit = nn.Identity() if inside == outside else nn.Linear(inside, outside)
        self.norm = nn.LayerNorm(outside)
        self.time = nn.Linear(time, outside)
        self.block = Block(sizes)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """From ``h [B, L, inside]`` and ``time [B, T]`` to ``[B, L, outside]``."""
        return self.block(self.norm(self.fit(h)) + self.time(F.silu(time))[:, None])


class Downsample(nn.Module):
    """A convolution of stride 2 along the sequence, from ``[B, L, D]`` to ``[B, L / 2, D]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, 3, stride=2, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.convolution(h.transpose(1, 2)).transpose(1, 2)


class Upsample(nn.Module):
    """Repeats every position, from ``[B, L, D]`` to ``[B, 2 L, D]``."""

    def forward(self, h: Tensor) -> Tensor:
        return h.repeat_interleave(2, dim=1)


class TransUNetDenoiser(nn.Module):
    """A U of transformer blocks. Lengths that the levels cannot halve are padded with zeros, and cropped afterwards."""

    def __init__(self, config: TransUNetConfig, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.config = config
        time, width = config.time_width, config.widths[0]
        self.time = TimeEmbedding(config.channels, time)
        self.input = nn.Sequential(nn.Linear(in_dim, width), nn.Tanh(), nn.Linear(width, width))
        self.positions = nn.Embedding(config.max_length, width)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.body = UShape(
            config,
            width,
            block=lambda inside, outside, _: TimedBlock(inside, outside, time, config),
            shrink=Downsample,
            grow=lambda _: Upsample(),
            attends=(),  # not needed: every block attends
            axis=-1,
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out_dim))

    def forward(self, x: Tensor, t: Tensor, conditioning: Conditioning | None = None, features: bool = False) -> Tensor:
        """As ``TransformerDenoiser``."""
        length = x.shape[1]
        h = self.input(x) + self.positions.weight[:length]
        h = self.body(F.pad(h, (0, 0, 0, -length % self.config.factor)), self.time(t, conditioning))
        output = self.output[:-1] if features else self.output
        return output(h[:, :length])
