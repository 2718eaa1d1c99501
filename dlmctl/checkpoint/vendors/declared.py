"""Declarations of checkpoint families, and types for the sizes in their ``config.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

# Bounds above those of any checkpoint, so that the sizes claimed by a file are limited before anything is built.
Width = Annotated[int, Field(strict=True, gt=0, le=1_048_576)]
Layers = Annotated[int, Field(strict=True, gt=0, le=128)]
Heads = Annotated[int, Field(strict=True, gt=0, le=1024)]
Rows = Annotated[int, Field(strict=True, gt=4, le=4_000_000)]
Positions = Annotated[int, Field(strict=True, gt=2, le=10_000_000)]
Id = Annotated[int, Field(strict=True, ge=0, lt=4_000_000)]
Block = Annotated[int, Field(strict=True, gt=0, le=65_536)]
Epsilon = Annotated[float, Field(gt=0, lt=1)]
Base = Annotated[float, Field(gt=1, le=1e12)]


class Sizes(BaseModel):
    """Base class for the contents of a ``config.json``; other keys are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Rope(BaseModel):
    """``rope_parameters``, as written by transformers 5; only the base may vary, and for some models the share of a
    head that is rotated."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rope_type: Literal["default"] = "default"
    rope_theta: Base | None = None
    partial_rotary_factor: Literal[1] = 1

    def base(self, default: float) -> float:
        """The base of the angles; some checkpoints have it elsewhere, which is the default."""
        return self.rope_theta or default


class Shape(NamedTuple):
    """The sizes of a checkpoint that the rest of the toolkit needs.

    Attributes:
        rows: rows of the embedding table.
        length: maximum number of positions.
        mask_id: the id of MASK, None if only the tokenizer defines it.
        block: positions per block of its attention, None if each attends to all positions.
    """

    rows: int
    width: int
    length: int
    mask_id: int | None
    block: int | None = None


class Vendor(NamedTuple):
    """A family of checkpoints.

    Attributes:
        name: as written by its authors.
        sizes: the required contents of its ``config.json``.
        shape: returns the ``Shape`` of those sizes.
        network: builds the network, a ``Network``, without values.
        rename: the name of a checkpoint tensor in that network, or in the one of ``transformers`` that it wraps; None
            for a tensor that is not a weight.
        predicts: the position whose token the scores at a position predict.
        sampler: the sampler used by its authors.
        splitting: how its tokenizer splits text where it is stored as ``vocab.json`` and ``merges.txt``.
        tokenizer: the hub name of its tokenizer, for checkpoints without one.
        roles: its special tokens by role (bos, eos, unk, pad, mask), for tokenizers of encoders that do not name them.
        mask_token: MASK, if neither ``config.json`` nor the tokenizer says which token it is.
        convert: the tensors of the network from the renamed ones of the checkpoint and the sizes, where more than names
            differs.
        noise: what it replaces tokens by: MASK, or random tokens.
        ends: whether it writes END where a text ends; otherwise the number of tokens is chosen before.
        new_tokens: the most tokens of a text, unless others are asked for.
    """

    name: str
    sizes: type[Sizes]
    shape: Callable[[Any], Shape]
    network: Callable[[Any], nn.Module]
    rename: Callable[[str], str | None]
    predicts: Literal["same", "next"]
    sampler: str
    splitting: Literal["gpt2", "qwen2"] = "gpt2"
    tokenizer: str | None = None
    roles: Mapping[str, str] = {}
    mask_token: str | None = None
    convert: Callable[[dict[str, Tensor], Any], dict[str, Tensor]] | None = None
    noise: Literal["masks", "uniform"] = "masks"
    ends: bool = True
    new_tokens: int = 128
