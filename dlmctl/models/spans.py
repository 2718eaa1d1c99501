"""A classifier of the spans of a latent's words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.models.transformer import LatentEncoder, TransformerConfig


class SpanClassifier(nn.Module):
    """Classifies any span of a latent's words, from the encoder's states on both sides of its two boundaries."""

    def __init__(self, embed_dim: int, length: int, labels: int) -> None:
        super().__init__()
        sizes = TransformerConfig(
            hidden=192, layers=2, heads=4, feedforward=512, dropout=0.1, max_length=length, time_channels=64
        )
        self.encoder = LatentEncoder(sizes, embed_dim)
        # The first layer of an MLP over both boundaries, split so that it runs once per word, not once per span.
        self.start = nn.Linear(2 * sizes.hidden, 128)
        self.end = nn.Linear(2 * sizes.hidden, 128, bias=False)
        self.out = nn.Linear(128, labels)

    def forward(self, x: Tensor, t: Tensor, starts: Tensor, ends: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``[B, S, labels]`` for latents ``[B, L, D]`` at times ``[B]`` in [0, 1].

        Args:
            starts, ends: first and last words of the spans, from 0: ``[S]``, or ``[B, S]`` if rows differ. There is a
                position before the first word and after the last one, as for START and END.
        """
        h = self.encoder(x, 1000 * t.float(), mask=mask)
        # The words before and after a constituent are as informative as its own first and last word.
        start = self.start(torch.cat([h[:, :-2], h[:, 1:-1]], -1))
        end = self.end(torch.cat([h[:, 1:-1], h[:, 2:]], -1))
        # Rows of one table: unlike with two-dimensional indexing, the backward pass is fast and adds in a fixed order.
        offset = start.shape[1] * torch.arange(len(h), device=h.device)[:, None]
        first, last = offset + starts, offset + ends
        span_ends = end.flatten(0, 1).index_select(0, last.flatten())
        spans = F.gelu(start.flatten(0, 1).index_select(0, first.flatten()) + span_ends)
        return self.out(spans).view(*first.shape, -1)
