"""BD3LM (Arriola et al. 2025): the transformer of MDLM with attention by blocks.

Its authors write a block by drawing one token at a time at a random place, which equals their ancestral steps (first
hitting, Zheng et al. 2025).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from dlmctl.checkpoint.vendors import mdlm
from dlmctl.checkpoint.vendors.declared import Block, Shape
from dlmctl.models.dit import DiT

# Bounds of the noise in training.
_NOT_WEIGHTS = ("sampling_eps_min", "sampling_eps_max")


class Bd3lmSizes(mdlm.MdlmSizes):
    """``config.json`` of a BD3LM.

    Attributes:
        adaln: whether the noise level shifts, scales and gates; it is always 0.
        cross_attn: whether positions attend by blocks; those of the pretrained model, and of MDLM, do not.
    """

    time_conditioning: Literal[False] = False
    block_size: Block = 1
    adaln: bool = True
    cross_attn: bool = True
    causal: Literal[False] = False


def shape(sizes: Bd3lmSizes) -> Shape:
    """The sizes that the toolkit needs."""
    by_blocks = sizes.cross_attn and sizes.block_size < sizes.model_length
    return mdlm.shape(sizes)._replace(block=sizes.block_size if by_blocks else None)


def network(sizes: Bd3lmSizes) -> nn.Module:
    """The transformer of these sizes."""
    config = mdlm.transformer(sizes)
    return DiT(config if sizes.adaln else config.model_copy(update={"condition": None}))


def rename(name: str) -> str | None:
    """The name of a tensor in ``DiT``; None for one that is not a weight."""
    return None if name in _NOT_WEIGHTS else mdlm.rename(name)


BD3LM = mdlm.MDLM._replace(
    name="BD3LM", sizes=Bd3lmSizes, shape=shape, network=network, rename=rename, sampler="random"
)
