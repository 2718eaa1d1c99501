"""Denoisers: one architecture per file, one small interface.

A denoiser maps a noisy latent ``[batch, length, in_dim]`` and times ``[batch]`` on the 0..1000 scale to
``[batch, length, out_dim]``; another inner shape is its own affair. A ``Conditioning`` may come as third argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

    from dlmctl.models.transformer import TransformerConfig

Architecture = Literal["transformer"]


def build_denoiser(
    architecture: Architecture, config: TransformerConfig, in_dim: int, out_dim: int, *, cross_attention: bool = False
) -> nn.Module:
    """The denoiser named by ``architecture``; with ``cross_attention`` it reads the memory of a ``Conditioning``.

    Raises:
        ValueError: no such architecture.
    """
    if architecture == "transformer":
        from dlmctl.models.transformer import TransformerDenoiser

        return TransformerDenoiser(config, in_dim, out_dim, cross_attention=cross_attention)
    raise ValueError(f"unknown architecture {architecture!r}")
