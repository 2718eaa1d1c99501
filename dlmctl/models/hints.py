"""Hints: the target features of each position of a text, as vectors that are added to the states of a frozen network.

A small encoder reads the features of all positions once per text, before the first step, and returns for each block of
the network a vector to add to its input: an adapter (Houlsby et al. 2019) that reads the condition, not the text.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlmctl.models.llama import LlamaBlock, LlamaConfig, rotations

# Width of a head of the encoder.
HEAD = 32


class HintsConfig(BaseModel):
    """Shape of the encoder."""

    model_config = ConfigDict(extra="forbid")

    features: list[str] = Field(max_length=60_000, description="features that a position can have, numbered from 1")
    width: int = Field(default=64, gt=0, le=4096, multiple_of=2, description="width of the encoder")
    blocks: int = Field(
        default=2, ge=0, le=64, description="its blocks; with 0, each position only receives its own features"
    )


class Hints(nn.Module):
    """Maps the features of positions to vectors for the blocks of a network.

    Args:
        model: sizes of the network.
    """

    def __init__(self, config: HintsConfig, model: LlamaConfig) -> None:
        super().__init__()
        self.hidden, self.layers = model.hidden, model.layers
        self.embed = nn.Embedding(len(config.features) + 1, config.width, padding_idx=0)
        sizes = LlamaConfig(
            hidden=config.width,
            layers=max(1, config.blocks),
            heads=max(1, config.width // HEAD),
            inner=2 * config.width,
            max_length=model.max_length,
            dropout=0.0,
        )
        self.blocks = nn.ModuleList(LlamaBlock(sizes) for _ in range(config.blocks))
        self.norm = nn.RMSNorm(config.width, sizes.norm_eps)
        self.out = nn.Linear(config.width, self.layers * self.hidden, bias=False)
        self.sizes = sizes
        # So that training starts from the unchanged network.
        nn.init.zeros_(self.out.weight)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """The vectors to add to the input of each block: ``[layers, B, L, H]``.

        Args:
            features: indices of the features of each position ``[B, L, F]``, padded with 0.
            mask: bool ``[B, L]``, true for the positions of each text; all if not given.
        """
        h = self.embed(features).sum(2)
        batch, length, _ = h.shape
        cosines, sines = (table[:length].to(h.device) for table in rotations(self.sizes))
        for block in self.blocks:
            h = block(h, (cosines, sines), None if mask is None else mask[:, None, None])
        hints: Tensor = self.out(self.norm(h))
        return hints.view(batch, length, self.layers, self.hidden).permute(2, 0, 1, 3)
