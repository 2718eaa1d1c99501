"""Dream (Ye et al. 2025) and DiffuCoder (Gong et al. 2025): Qwen2 with full attention, predicting the next position.

They were adapted from a causal model and keep its shift: the scores at a position are for the next token.
"""

from __future__ import annotations

from functools import partial

from dlmctl.checkpoint.vendors.declared import Base, Vendor
from dlmctl.checkpoint.vendors.decoder import DecoderSizes, network, rename, shape


class DreamSizes(DecoderSizes):
    """``config.json`` of a Dream model."""

    rope_theta: Base = 1e6


DREAM = Vendor(
    "Dream",
    DreamSizes,
    shape,
    partial(network, "qwen2"),
    rename,
    predicts="next",
    sampler="entropy",
    splitting="qwen2",
)
