"""Operations on latents, for the Gaussian family only: guidance of x_t and x_0, rounding, pinned words."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.diffusion.model import DiffusionLM
from dlmctl.recipe.settings import Guidance
from dlmctl.sampling.guidance import LARGEST_SHIFT, Gradient, updates_of


def shift_latent(x0: Tensor, x_t: Tensor, alphabar: Tensor, gradient: Gradient, scale: float) -> Tensor:
    """Guided x_0 estimate: classifier guidance (Dhariwal and Nichol 2021, algorithm 2) in terms of x_0.

    Adding -grad E to the score of x_t moves the x_0 estimate by -(1 - alphabar) / sqrt(alphabar) * grad E,
    for ``alphabar [B, 1, 1]``. With the gradient of a noise-aware classifier at x_t this is the original method; with
    the energy of the x_0 estimate, through the denoiser, it is universal guidance (Bansal et al. 2023).
    """
    shift = scale * (1 - alphabar) / alphabar.sqrt() * gradient(x_t)
    return x0 - shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)


def langevin(x: Tensor, mean: Tensor, variance: Tensor, gradient: Gradient, guidance: Guidance) -> Tensor:
    """Guided x_s: Adagrad on ``fluency * ||mean - x||^2 / variance + energy`` (Li et al. 2022, section 5.1).

    Args:
        x, mean: ``[B, L, D]``, the draw and the mean of its distribution; variance: ``[B, 1, 1]``.
    """
    x = x.detach().clone()
    squares = torch.zeros_like(x)
    for _ in range(updates_of(guidance, with_evidence=False)):
        total = gradient(x) + 2 * guidance.fluency * (x - mean) / variance.clamp(min=1e-6)
        squares += total.square()
        x = x - guidance.step_size * total / (squares.sqrt() + 1e-10)
    return x


def rounded(model: DiffusionLM, x0: Tensor, logits: Tensor | None) -> Tensor:
    """``x0 [B, L, D]`` replaced by a word's embedding at each place: of the likeliest word, or without logits of the
    nearest."""
    return model.clamp(x0) if logits is None else model.embed(logits.argmax(-1))


def pinned(x0: Tensor, allowed: Tensor, embeddings: Tensor) -> Tensor:
    """``x0 [B, L, D]`` with the word's embedding where only one word is ``allowed [B, L, V]``."""
    is_fixed = allowed.sum(-1) == 1
    return torch.where(is_fixed[..., None], embeddings[allowed.int().argmax(-1)].to(x0), x0)
