"""The U shape (Ronneberger et al. 2015): down through coarser and coarser levels and up again, with skip connections.

Every state on the way down is concatenated on the way up. The architectures define the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class UShapeConfig(BaseModel):
    """Sizes of a denoiser in the shape of a U."""

    model_config = ConfigDict(extra="forbid")

    channels: PositiveInt = Field(
        default=128, le=16_384, description="width of the time features, and unit of the level widths"
    )
    multipliers: list[Annotated[int, Field(gt=0, le=1024)]] = Field(
        default=[1, 2, 2, 2],
        min_length=1,
        max_length=12,
        description="width of each level in channels; each level has half the positions of the one before",
    )
    residual_blocks: PositiveInt = Field(
        default=2, le=16, description="blocks per level on the way down; one more on the way up"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout probability, in training only")
    checkpointing: bool = Field(default=False, description="recompute activations in the backward pass to save memory")

    @property
    def widths(self) -> list[int]:
        """The width of each level, finest first."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    @property
    def factor(self) -> int:
        """The ratio of resolutions of the first and the last level, of which each side must be a multiple."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def time_width(self) -> int:
        """Width of the time embedding, to which the embedding of a label is added."""
        return 4 * self.channels

    def summary(self) -> str:
        """The sizes in words."""
        return f"levels of width {', '.join(map(str, self.widths))}, {self.residual_blocks} blocks a level"


class UShape(nn.Module):
    """The wiring of a U; its blocks are called with the state and the time embedding.

    Args:
        config: widths of the levels and number of blocks.
        start: width of the input state; the output has ``config.widths[0]``.
        block: builds a block from its input width, its output width and whether it has attention.
        shrink, grow: build the layer that halves or doubles the resolution of a state, from its width.
        attends: levels whose blocks have attention; the first of the two middle blocks always has it.
        axis: the channel dimension of a state.
    """

    def __init__(
        self,
        config: UShapeConfig,
        start: int,
        block: Callable[[int, int, bool], nn.Module],
        shrink: Callable[[int], nn.Module],
        grow: Callable[[int], nn.Module],
        attends: Collection[int],
        axis: int,
    ) -> None:
        super().__init__()
        self.axis, self.checkpointing = axis, config.checkpointing
        self.down, self.middle, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        width, skip_widths = start, [start]
        last = len(config.widths) - 1
        for level, outside in enumerate(config.widths):
            stage = nn.ModuleList()
            for _ in range(config.residual_blocks):
                stage.append(block(width, outside, level in attends))
                width = outside
                skip_widths.append(width)
            self.down.append(stage)
            if level < last:
                self.shrink.append(shrink(width))
                skip_widths.append(width)
        self.middle.extend([block(width, width, True), block(width, width, False)])
        for level, outside in reversed(list(enumerate(config.widths))):
            stage = nn.ModuleList()
            for _ in range(config.residual_blocks + 1):
                stage.append(block(width + skip_widths.pop(), outside, level in attends))
                width = outside
            self.up.append(stage)
            if level > 0:
                self.grow.append(grow(width))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """From a state and the time embedding ``[batch, width]`` to a state of the same resolution."""
        skips = [h]
        for level, stage in enumerate(self.down):
            for block in _blocks(stage):
                h = self._run(block, h, time)
                skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                skips.append(h)
        for block in self.middle:
            h = self._run(block, h, time)
        for level, stage in enumerate(self.up):
            for block in _blocks(stage):
                h = self._run(block, torch.cat([h, skips.pop()], self.axis), time)
            if level < len(self.grow):
                h = self.grow[level](h)
        return h

    def _run(self, block: nn.Module, h: Tensor, time: Tensor) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(block, h, time, use_reentrant=False)
        return block(h, time)


def _blocks(stage: nn.Module) -> Sequence[nn.Module]:
    return list(stage.children())
