"""A classifier of the spans of a latent's words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmctl.models.transformer import LatentEncoder, TransformerConfig


class SpanClassifier(nn.Module):
    """The label of any span of a latent's words, from the encoder's states on both sides of its two ends."""

    def __init__(self, embed_dim: int, length: int, labels: int) -> None:
        super().__init__()
        sizes = TransformerConfig(
            hidden=192, layers=2, heads=4, feedforward=512, dropout=0.1, max_length=length, time_channels=64
        )
        self.encoder = LatentEncoder(sizes, embed_dim)
        # The first layer of an MLP over both ends, taken apart so that it runs once a word and not once a span.
        self.start = nn.Linear(2 * sizes.hidden, 128)
        self.end = nn.Linear(2 * sizes.hidden, 128, bias=False)
        self.out = nn.Linear(128, labels)

    def forward(self, x: Tensor, t: Tensor, starts: Tensor, ends: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latents ``[B, L, D]`` at times ``[B]`` in [0, 1] to logits ``[B, S, labels]``.

        Args:
            starts, ends: first and last words of the spans, from 0, ``[S]`` or, where rows differ, ``[B, S]``; a
                position is left on either side of them, as START and END take.
        """
        h = self.encoder(x, 1000 * t.float(), mask=mask)
        # What stands before a constituent and behind it tells as much as its own first and last word.
        start = self.start(torch.cat([h[:, :-2], h[:, 1:-1]], -1))
        end = self.end(torch.cat([h[:, 1:-1], h[:, 2:]], -1))
        # As rows of one table: unlike that of an index in two dimensions, its backward pass is quick and adds in order.
        row = start.shape[1] * torch.arange(len(h), device=h.device)[:, None]
        first, last = row + starts, row + ends
        ends_of = end.flatten(0, 1).index_select(0, last.flatten())
        spans = F.gelu(start.flatten(0, 1).index_select(0, first.flatten()) + ends_of)
        return self.out(spans).view(*first.shape, -1)
