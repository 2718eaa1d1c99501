"""Denoisers: one architecture per file, with a small common interface.

A denoiser maps a noisy latent ``[batch, length, in_dim]`` and times ``[batch]`` on the 0..1000 scale to
``[batch, length, out_dim]``, for any length. It takes an optional ``Conditioning`` as ``conditioning``; the transformer
also takes an attention mask ``mask``. Its last layers are called ``output``, of which the last returns ``out_dim``; if
that layer is linear, ``features=True`` returns its input instead.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from torch import nn

from dlmctl.models.transformer import TransformerConfig, TransformerDenoiser
from dlmctl.models.transunet import TransUNetConfig, TransUNetDenoiser
from dlmctl.models.unet import UNetConfig
from dlmctl.models.unet1d import UNet1dDenoiser
from dlmctl.models.unet2d import FoldedUNetConfig, UNet2dDenoiser

Architecture = Literal["transformer", "1d-unet", "conv-unet", "trans-unet"]
DenoiserConfig = TransformerConfig | UNetConfig | FoldedUNetConfig | TransUNetConfig


class Kind(NamedTuple):
    """An architecture: its settings and its module."""

    config: type[BaseModel]
    module: Any


ARCHITECTURES: dict[Architecture, Kind] = {
    "transformer": Kind(TransformerConfig, TransformerDenoiser),
    "1d-unet": Kind(UNetConfig, UNet1dDenoiser),
    "conv-unet": Kind(FoldedUNetConfig, UNet2dDenoiser),
    "trans-unet": Kind(TransUNetConfig, TransUNetDenoiser),
}


def denoiser_config(architecture: Architecture, settings: Any) -> Any:
    """Validate the settings of a denoiser for its architecture.

    Args:
        settings: a mapping, or settings that are already validated.

    Raises:
        ValueError: they are invalid, or belong to another architecture.
    """
    config = ARCHITECTURES[architecture].config
    names = set(settings) if isinstance(settings, dict) else set()
    known = {name for kind in ARCHITECTURES.values() for name in kind.config.model_fields}
    foreign = sorted(names & (known - set(config.model_fields)))
    if foreign:
        raise ValueError(f"{architecture} has no {foreign[0]}; its settings are {', '.join(config.model_fields)}")
    return config.model_validate(settings)


def build_denoiser(
    architecture: Architecture, config: DenoiserConfig, in_dim: int, out_dim: int, *, cross_attention: bool = False
) -> nn.Module:
    """Build the denoiser named by ``architecture``; with ``cross_attention`` it attends to a ``Conditioning``'s memory.

    Raises:
        ValueError: no such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}")
    # Only the transformer supports this; validation rejects it for other architectures.
    options = {"cross_attention": True} if cross_attention else {}
    return ARCHITECTURES[architecture].module(config, in_dim, out_dim, **options)
