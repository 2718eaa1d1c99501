"""Denoisers: one architecture per file, one small interface.

A denoiser maps a noisy latent ``[batch, length, in_dim]`` and times ``[batch]`` on the 0..1000 scale to
``[batch, length, out_dim]``, whatever the length; another inner shape is its own affair. A ``Conditioning`` may come as
``conditioning``; the transformer also takes which positions of each row count, as ``mask``. The last layers are called
``output``, and the last of those gives ``out_dim``; where it is linear, ``features=True`` asks for its input.
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
    """The settings of a denoiser, validated by the architecture that they are for.

    Args:
        settings: a mapping, or settings that are validated already.

    Raises:
        ValueError: they do not fit, or are those of another architecture.
    """
    config = ARCHITECTURES[architecture].config
    given = set(settings) if isinstance(settings, dict) else set()
    others = {name for other in ARCHITECTURES.values() for name in other.config.model_fields}
    strange = sorted(given & (others - set(config.model_fields)))
    if strange:
        raise ValueError(f"{architecture} has no {strange[0]}; its settings are {', '.join(config.model_fields)}")
    return config.model_validate(settings)


def build_denoiser(
    architecture: Architecture, config: DenoiserConfig, in_dim: int, out_dim: int, *, cross_attention: bool = False
) -> nn.Module:
    """The denoiser named by ``architecture``; with ``cross_attention`` it reads the memory of a ``Conditioning``.

    Raises:
        ValueError: no such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}")
    # Only the transformer can read a memory; a configuration that asks it of another is refused where it is read.
    reading = {"cross_attention": True} if cross_attention else {}
    return ARCHITECTURES[architecture].module(config, in_dim, out_dim, **reading)
