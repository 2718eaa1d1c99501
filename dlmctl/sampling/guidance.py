"""How controls' energies move the latent: one function per method.

Each takes ``gradient``, the controls' summed d energy / d at for any point ``at``. Energies are sums over a sample in
nats, so a step does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlmctl.recipe.settings import Guidance

# A bound on the change of any one logit or coordinate in one update, so that no energy, however steep,
# throws a sample off.
LARGEST_SHIFT = 20.0

Gradient = Callable[[Tensor], Tensor]
"""A point, ``[B, L, V]`` word probabilities or ``[B, L, D]`` latents, to the energy's gradient there."""


def strength(guidance: Guidance, t: float) -> float:
    """The scale of guidance at time ``t``; 0 outside the times it acts in."""
    if not guidance.until <= t <= guidance.since:
        return 0.0
    share = {"constant": 1.0, "rising": 1.0 - t, "falling": t}[guidance.schedule]
    return guidance.scale * share


def shift_words(logits: Tensor, gradient: Gradient, scale: float, updates: int) -> Tensor:
    """What to add to word logits ``[B, L, V]``: mirror descent on the word probabilities of the x_0 estimate.

    An update adds -scale * d energy / d p to the logits, which is exponentiated gradient descent on the
    simplex (Beck and Teboulle 2003): unlike a step on the logits it also reaches words that the model finds
    unlikely so far. To first order in the energy it multiplies each word's probability by that of the
    constraint given the word. It needs no backward pass through the denoiser.
    """
    shift = torch.zeros_like(logits)
    for _ in range(updates):
        slope = gradient((logits + shift).softmax(-1))
        # Only differences between the words of a position matter.
        slope = slope - slope.mean(-1, keepdim=True)
        shift = shift - (scale / updates * slope).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    return shift


def shift_latent(x0: Tensor, x_t: Tensor, alphabar: Tensor, gradient: Gradient, scale: float) -> Tensor:
    """Guided x_0 estimate: classifier guidance (Dhariwal and Nichol 2021, algorithm 2) in terms of x_0.

    Adding -grad E to the score of x_t moves the x_0 estimate by -(1 - alphabar) / sqrt(alphabar) * grad E,
    for ``alphabar [B, 1, 1]``. With the gradient taken at x_t by a noise-aware classifier this is the plain form; with
    the energy of the x_0 estimate, through the denoiser, it is universal guidance (Bansal et al. 2023).
    """
    shift = scale * (1 - alphabar) / alphabar.sqrt() * gradient(x_t)
    return x0 - shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)


def langevin(x: Tensor, mean: Tensor, variance: Tensor, gradient: Gradient, guidance: Guidance) -> Tensor:
    """Guided x_s: Adagrad on ``fluency * ||mean - x||^2 / variance + energy`` (Li et al. 2022, section 5.1).

    Args:
        x, mean: ``[B, L, D]``, the draw and the mean it was drawn around; variance: ``[B, 1, 1]``.
    """
    x = x.detach().clone()
    squares = torch.zeros_like(x)
    for _ in range(guidance.updates):
        slope = gradient(x) + 2 * guidance.fluency * (x - mean) / variance.clamp(min=1e-6)
        squares += slope.square()
        x = x - guidance.step_size * slope / (squares.sqrt() + 1e-10)
    return x
