"""Dream (Ye et al. 2025), DiffuCoder (Gong et al. 2025) and Open-dCoder (Peng et al. 2025): Qwen2 with full attention,
predicting the next position; and CoDA (Chen et al. 2025), the same with Qwen3.

They were adapted from a causal model and keep its shift: the scores at a position are for the next token.
"""

from __future__ import annotations

from functools import partial

from dlmctl.checkpoint.vendors.declared import Base, Id, Vendor, Width
from dlmctl.checkpoint.vendors.decoder import DecoderSizes, UnbiasedSizes, network, rename, shape


class DreamSizes(DecoderSizes):
    """``config.json`` of a Dream model."""

    rope_theta: Base = 1e6


class CodaSizes(UnbiasedSizes):
    """``config.json`` of a CoDA model. Its output layer is never that of the embeddings, whatever this says."""

    head_dim: Width = 128
    rope_theta: Base = 1e6
    mask_token_id: Id = 151669


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
# Nothing in its files but a token that Qwen2 does not have tells it from a Qwen2.
OPEN_DCODER = DREAM._replace(name="Open-dCoder", mask_token="<M>")
CODA = DREAM._replace(name="CoDA", sizes=CodaSizes, network=partial(network, "qwen3"))
