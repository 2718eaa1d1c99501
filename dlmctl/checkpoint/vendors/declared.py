"""What is declared of each family of checkpoints, and the sizes that its ``config.json`` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

# More than any checkpoint has, so that what a file claims is bounded before anything is built.
Width = Annotated[int, Field(strict=True, gt=0, le=1_048_576)]
Layers = Annotated[int, Field(strict=True, gt=0, le=128)]
Heads = Annotated[int, Field(strict=True, gt=0, le=1024)]
Rows = Annotated[int, Field(strict=True, gt=4, le=4_000_000)]
Positions = Annotated[int, Field(strict=True, gt=2, le=10_000_000)]
Id = Annotated[int, Field(strict=True, ge=0, lt=4_000_000)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]
Base = Annotated[float, Field(gt=1, le=1e12)]


class Sizes(BaseModel):
    """Base of what is read of a ``config.json``; what is not asked for is let be."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Rope(BaseModel):
    """``rope_parameters``, as transformers 5 writes how positions turn: only the base may vary."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rope_type: Literal["default"] = "default"
    rope_theta: Base | None = None

    def base(self, otherwise: float) -> float:
        """The base of the angles, which may stand elsewhere instead."""
        return self.rope_theta or otherwise


class Shape(NamedTuple):
    """What the rest of the toolkit must know of a checkpoint's sizes.

    Attributes:
        rows: of its table of embeddings.
        length: most positions.
        mask_id: the id of MASK, None where only the tokenizer says it.
    """

    rows: int
    width: int
    length: int
    mask_id: int | None


class Vendor(NamedTuple):
    """A family of checkpoints.

    Attributes:
        name: as its authors write it.
        sizes: what its ``config.json`` must hold.
        shape: of those sizes.
        network: builds the network, a ``Network``, without values.
        renamed: the name of one of its tensors in that network; None for one that is no weight.
        predicts: whose token a position's scores are.
        sampler: the walk of its authors.
        splitting: how its tokenizer splits text where it comes as ``vocab.json`` and ``merges.txt``.
        tokenizer: the hub name of its tokenizer, where a checkpoint comes without.
        block: positions that its authors write before those behind them, None for all at once.
    """

    name: str
    sizes: type[Sizes]
    shape: Callable[[Any], Shape]
    network: Callable[[Any], nn.Module]
    renamed: Callable[[str], str | None]
    predicts: Literal["same", "next"]
    sampler: str
    splitting: Literal["gpt2", "qwen2"] = "gpt2"
    tokenizer: str | None = None
    block: int | None = None
