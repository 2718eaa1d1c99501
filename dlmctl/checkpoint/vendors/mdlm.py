"""MDLM (Sahoo et al. 2024): a diffusion transformer over the tokens of GPT-2, MASK the last id."""

from __future__ import annotations

from torch import nn

from dlmctl.checkpoint.vendors.declared import Heads, Layers, Positions, Rows, Shape, Sizes, Vendor, Width
from dlmctl.models.dit import DiT, DiTConfig

_ROOT = "backbone."
# Tables that are computed from the sizes.
_DERIVED = ("rotary_emb.inv_freq",)


class DiTSizes(Sizes):
    """``config.json`` of a diffusion transformer by the authors of MDLM."""

    hidden_dim: Width
    n_blocks: Layers
    n_heads: Heads
    cond_dim: Width
    model_length: Positions
    vocab_size: Rows


class MdlmSizes(DiTSizes):
    """``config.json`` of an MDLM model."""

    time_conditioning: bool = False


def shape(sizes: DiTSizes) -> Shape:
    """The sizes that the toolkit needs."""
    return Shape(sizes.vocab_size, sizes.hidden_dim, sizes.model_length, sizes.vocab_size - 1)


def transformer(sizes: DiTSizes) -> DiTConfig:
    """The sizes by the names of ``DiT``."""
    return DiTConfig(
        rows=sizes.vocab_size,
        hidden=sizes.hidden_dim,
        layers=sizes.n_blocks,
        heads=sizes.n_heads,
        condition=sizes.cond_dim,
    )


def network(sizes: MdlmSizes) -> nn.Module:
    """The transformer of these sizes."""
    mask_id = sizes.vocab_size - 1 if sizes.time_conditioning else None
    return DiT(transformer(sizes).model_copy(update={"mask_id": mask_id}))


def rename(name: str) -> str | None:
    """The name of a tensor in ``DiT``; None for tables that are computed from the sizes."""
    inner = name.removeprefix(_ROOT)
    return None if inner in _DERIVED else inner


MDLM = Vendor(
    "MDLM",
    MdlmSizes,
    shape,
    network,
    rename,
    predicts="same",
    sampler="ancestral",
    tokenizer="openai-community/gpt2",
)
