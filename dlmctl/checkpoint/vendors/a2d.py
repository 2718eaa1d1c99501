"""A2D (dLLM, Zhou et al. 2025): Llama, Qwen2 and Qwen3, trained on as masked diffusion models.

Unlike Dream they predict the token of their own position. Their MASK is a token that was added to the tokenizer. They
have full attention; those trained as block diffusion (BD3LM) do not say so in ``config.json``, unless ``block_size`` is
added to it.
"""

from __future__ import annotations

from functools import partial

from dlmctl.checkpoint.vendors.declared import Vendor
from dlmctl.checkpoint.vendors.decoder import Kind, UnbiasedSizes, network, rename, shape

KINDS: tuple[Kind, ...] = ("llama", "qwen2", "qwen3")
# By model_type.
A2D = {
    f"a2d-{kind}": Vendor(
        "A2D",
        UnbiasedSizes,
        shape,
        partial(network, kind),
        rename,
        predicts="same",
        sampler="low_confidence",
        splitting="gpt2" if kind == "llama" else "qwen2",
    )
    for kind in KINDS
}
