"""``conv-unet``: a U-Net over the sequence folded row by row into an image."""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from dlmctl.models.interface import Conditioning
from dlmctl.models.transformer import MAX_LENGTH
from dlmctl.models.unet import UNet, UNetConfig


class FoldedUNetConfig(UNetConfig):
    """Sizes of a U-Net over a folded sequence."""

    row: PositiveInt = Field(
        default=8, le=MAX_LENGTH, description="positions per row of the image; the root of model.length makes a square"
    )

    @model_validator(mode="after")
    def _levels_halve_the_row(self) -> Self:
        if self.row % self.factor:
            raise ValueError(
                f"with {len(self.multipliers)} levels, row must be a multiple of {self.factor}, not {self.row}"
            )
        return self


class UNet2dDenoiser(UNet):
    """A U-Net over the sequence as an image of ``config.row`` columns.

    A short sequence fills only the upper rows, so that a position has the same neighbours at every length.
    """

    config: FoldedUNetConfig

    def __init__(self, config: FoldedUNetConfig, in_dim: int, out_dim: int) -> None:
        super().__init__(config, in_dim, out_dim, dims=2)

    def forward(self, x: Tensor, t: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """From ``x [batch, length, in_dim]`` and ``t [batch]`` in 0..1000 to ``[batch, length, out_dim]``."""
        length, columns = x.shape[1], self.config.row
        padded = F.pad(x, (0, 0, 0, -length % (columns * self.config.factor)))
        image = padded.transpose(1, 2).reshape(len(x), x.shape[2], -1, columns)
        return self.over_grid(image, t, conditioning).flatten(2).transpose(1, 2)[:, :length]
