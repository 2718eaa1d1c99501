"""A classifier of every position of a latent."""

from __future__ import annotations

from torch import Tensor, nn

from dlmctl.models.transformer import LatentEncoder, TransformerConfig


class PositionClassifier(nn.Module):
    """A ``LatentEncoder`` and a linear layer.

    Args:
        embed_dim: width of the latent.
        length: most positions.
        classes: number of classes.
    """

    def __init__(self, embed_dim: int, length: int, classes: int) -> None:
        super().__init__()
        sizes = TransformerConfig(hidden=192, layers=2, heads=4, dropout=0.1, max_length=length, time_channels=64)
        self.encoder = LatentEncoder(sizes, embed_dim)
        self.head = nn.Linear(sizes.hidden, classes)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``[B, L, classes]`` for latents ``[B, L, D]`` at times ``[B]`` in [0, 1].

        ``mask [B, L]`` is true for the positions to attend to; None for all.
        """
        return self.head(self.encoder(x, 1000 * t.float(), mask=mask))
