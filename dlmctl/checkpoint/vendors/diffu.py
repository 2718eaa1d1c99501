"""DiffuGPT and DiffuLLaMA (Gong et al. 2025): GPT-2 and Llama 2 with full attention, predicting the next position.

They were trained on from causal models and keep their shift, as Dream does. MASK is a word of the vocabulary that texts
no longer have (DiffuGPT-S, DiffuLLaMA) or a new token (DiffuGPT-M), which the tokenizer names.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlmctl.checkpoint.vendors.declared import Heads, Id, Layers, Positions, Rows, Shape, Sizes, Vendor, Width
from dlmctl.checkpoint.vendors.decoder import UnbiasedSizes, network, rename, shape
from dlmctl.errors import ModelError
from dlmctl.models.gpt2 import EPSILON, BidirectionalGPT2, GPT2Sizes

# The embeddings.
TABLE, _OWN_TABLE = "embed_tokens.weight", "transformer.wte.weight"
_HEAD = "lm_head.weight"
# The names of DiffuGPT, and those in ``GPT2``.
_NAMES = {"embed_tokens.": "transformer.wte.", "denoise_model.": "transformer."}
# Causal masks of old checkpoints, and copies of other weights.
_UNUSED_ENDS, _UNUSED_STARTS = (".attn.bias", ".attn.masked_bias"), ("model.",)


class DiffuGPTSizes(Sizes):
    """``config.json`` of a DiffuGPT."""

    vocab_size: Rows
    n_positions: Positions
    n_embd: Width
    n_layer: Layers
    n_head: Heads
    n_inner: Width | None = None
    mask_token_id: Id | None = None
    activation_function: Literal["gelu_new"] = "gelu_new"
    layer_norm_epsilon: Annotated[float, Field(ge=EPSILON, le=EPSILON)] = EPSILON
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False


def _shape(sizes: DiffuGPTSizes) -> Shape:
    return Shape(sizes.vocab_size, sizes.n_embd, sizes.n_positions, sizes.mask_token_id)


def _network(sizes: DiffuGPTSizes) -> nn.Module:
    if sizes.n_embd % sizes.n_head:
        raise ValueError("the number of heads does not divide the width")
    own = {name: getattr(sizes, name) for name in GPT2Sizes._fields}
    return BidirectionalGPT2(GPT2Sizes(**own))


def _rename(name: str) -> str | None:
    if name.endswith(_UNUSED_ENDS) or name.startswith(_UNUSED_STARTS):
        return None
    for theirs, own in _NAMES.items():
        if name.startswith(theirs):
            return own + name.removeprefix(theirs)
    return name


def _convert(state: dict[str, Tensor], sizes: DiffuGPTSizes) -> dict[str, Tensor]:
    """The tensors without the output layer, which is that of the embeddings.

    Raises:
        ModelError: it is another.
    """
    head = state.pop(_HEAD, None)
    if head is not None and _OWN_TABLE in state and not torch.equal(head, state[_OWN_TABLE]):
        raise ModelError("lm_head.weight is not embed_tokens.weight, as it is in every DiffuGPT.")
    return state


DIFFUGPT = Vendor(
    "DiffuGPT", DiffuGPTSizes, _shape, _network, _rename, predicts="next", sampler="ancestral", convert=_convert
)
DIFFULLAMA = Vendor(
    "DiffuLLaMA", UnbiasedSizes, shape, partial(network, "llama"), rename, predicts="next", sampler="ancestral"
)
