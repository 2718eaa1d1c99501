"""SEDD (Lou et al. 2024) with an absorbing state: the transformer of MDLM, trained to give ratios of probabilities.

At a masked position the score of a token v is log p(x with v) / p(x). With an absorbing state that ratio is
p(v | the unmasked tokens) e^-sigma / (1 - e^-sigma) (Ou et al. 2025, theorem 1). The factor of sigma, and the one by
which the network's own output is divided (``scale_by_sigma``), are the same for all tokens. So the softmax of the
scores of all tokens but MASK is the denoiser of masked diffusion, whose optimum does not depend on sigma; but the
network still takes one, and gets that of the share of masks.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from dlmctl.checkpoint.vendors.declared import Heads, Layers, Positions, Rows, Shape, Sizes, Width
from dlmctl.checkpoint.vendors.mdlm import MDLM
from dlmctl.models.dit import DiT, DiTConfig


class Transformer(Sizes):
    """``model`` in the settings of a SEDD."""

    type: Literal["ddit"] = "ddit"
    hidden_size: Width
    n_blocks: Layers
    n_heads: Heads
    cond_dim: Width
    length: Positions


class Graph(Sizes):
    """``graph``: what noise does to tokens; models whose tokens become other tokens (``uniform``) are refused."""

    type: Literal["absorb"]


class Noise(Sizes):
    """``noise``: how sigma grows with time; the levels of training follow from it."""

    type: Literal["loglinear"]


class SeddSizes(Sizes):
    """``config.json`` of a SEDD: the settings of its training. ``tokens`` does not count MASK, which follows them."""

    graph: Graph
    noise: Noise
    model: Transformer
    tokens: Rows


def shape(sizes: SeddSizes) -> Shape:
    """The sizes that the toolkit needs."""
    return Shape(sizes.tokens + 1, sizes.model.hidden_size, sizes.model.length, sizes.tokens)


def network(sizes: SeddSizes) -> nn.Module:
    """The transformer of these sizes."""
    return DiT(
        DiTConfig(
            rows=sizes.tokens + 1,
            hidden=sizes.model.hidden_size,
            layers=sizes.model.n_blocks,
            heads=sizes.model.n_heads,
            condition=sizes.model.cond_dim,
            mask_id=sizes.tokens,
        )
    )


SEDD = MDLM._replace(name="SEDD", sizes=SeddSizes, shape=shape, network=network)
