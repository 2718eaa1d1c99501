"""``1d-unet``: a U-Net along the sequence."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dlmctl.models.interface import Conditioning
from dlmctl.models.unet import UNet, UNetConfig


class UNet1dDenoiser(UNet):
    """A U-Net over positions. Lengths that the levels cannot halve are padded with zeros, and cropped afterwards."""

    def __init__(self, config: UNetConfig, in_dim: int, out_dim: int) -> None:
        super().__init__(config, in_dim, out_dim, dims=1)

    def forward(self, x: Tensor, t: Tensor, conditioning: Conditioning | None = None) -> Tensor:
        """From ``x [batch, length, in_dim]`` and ``t [batch]`` in 0..1000 to ``[batch, length, out_dim]``."""
        length = x.shape[1]
        padded = F.pad(x, (0, 0, 0, -length % self.config.factor)).transpose(1, 2)
        return self.over_grid(padded, t, conditioning).transpose(1, 2)[:, :length]
