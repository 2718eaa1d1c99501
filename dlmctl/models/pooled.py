"""A classifier of whole latents: several labels at once, each with its own attention pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlmctl.models.numerics import at_least_float32
from dlmctl.models.transformer import LatentEncoder, TransformerConfig


class PooledClassifier(nn.Module):
    """A ``LatentEncoder``, and for each label a learned weighting of the positions and a linear layer.

    Args:
        embed_dim: width of the latent.
        length: most positions.
        classes: number of classes of each label.
    """

    def __init__(self, embed_dim: int, length: int, classes: Sequence[int]) -> None:
        super().__init__()
        sizes = TransformerConfig(hidden=160, layers=2, heads=4, dropout=0.1, max_length=length, time_channels=64)
        self.encoder = LatentEncoder(sizes, embed_dim)
        self.attention = nn.Linear(sizes.hidden, len(classes))
        self.heads = nn.ModuleList(nn.Linear(sizes.hidden, count) for count in classes)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Logits ``[B, classes]``, a tensor per label, for latents ``[B, L, D]`` at times ``[B]`` in [0, 1].

        ``mask [B, L]`` is true for the positions to attend to; None for all.
        """
        h = self.encoder(x, 1000 * t.float(), mask=mask)
        scores = at_least_float32(self.attention(h))
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -torch.inf)
        weights = scores.softmax(1).to(h)
        pooled = torch.einsum("blf,blh->fbh", weights, h)
        return [head(states) for head, states in zip(self.heads, pooled, strict=True)]
