"""Diffusion transformers trained with uniform noise: UDLM (Schiff et al. 2024) and Duo (Sahoo et al. 2025)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from dlmctl.checkpoint.vendors.declared import Shape, Vendor
from dlmctl.checkpoint.vendors.masked_encoders import BERT_ROLES
from dlmctl.checkpoint.vendors.mdlm import DiTSizes, rename, shape, transformer
from dlmctl.models.dit import DiT

# Half of the positions of the published UDLM of sentences.
UDLM_TOKENS = 64


class UdlmSizes(DiTSizes):
    """``config.json`` of a UDLM model. Models trained to take a class (``cfg``) or without the time are refused."""

    time_conditioning: Literal[True] = True
    cfg: Literal[False] = False


class DuoSizes(DiTSizes):
    """``config.json`` of a Duo model, distilled or not."""

    causal: Literal[False] = False


def _network(sizes: DiTSizes) -> nn.Module:
    """The transformer of these sizes; it is told the noise level."""
    return DiT(transformer(sizes))


def _udlm_shape(sizes: UdlmSizes) -> Shape:
    """MASK is that of its tokenizer: one of the tokens, which training wrote as any other."""
    return shape(sizes)._replace(mask_id=None)


UDLM = Vendor(
    "UDLM",
    UdlmSizes,
    _udlm_shape,
    _network,
    rename,
    predicts="same",
    sampler="ancestral",
    tokenizer="google-bert/bert-base-uncased",
    roles=BERT_ROLES,
    noise="uniform",
    new_tokens=UDLM_TOKENS,
)
DUO = Vendor(
    "Duo",
    DuoSizes,
    shape,
    _network,
    rename,
    predicts="same",
    sampler="ancestral",
    tokenizer="openai-community/gpt2",
    noise="uniform",
)
