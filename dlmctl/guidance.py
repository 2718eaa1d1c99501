"""How controls' energies move the latent: one function per method.

Energies are sums over a sample in nats, so a step does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlmctl.settings import Guidance

# A bound on the change of any one logit or coordinate in one update, so that no energy, however steep,
# throws a sample off.
LARGEST_SHIFT = 20.0


EnergyOfWords = Callable[[Tensor], Tensor]
"""Word probabilities ``[B, L, V]`` to energies ``[B]``."""

EnergyOfLatent = Callable[[Tensor], Tensor]
"""A latent ``[B, L, D]`` to energies ``[B]``."""


def _gradient(energy: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """d energy / d at, finite everywhere: a sample whose energy is not a number is left as it is."""
    with torch.enable_grad():
        leaf = at.detach().requires_grad_()
        energies = energy(leaf)
        (slope,) = torch.autograd.grad(energies.sum(), leaf)
    broken = ~torch.isfinite(energies) | ~torch.isfinite(slope).flatten(1).all(1)
    return slope.masked_fill(broken.reshape(-1, 1, 1), 0.0)


def shift_words(logits: Tensor, energy: EnergyOfWords, guidance: Guidance) -> Tensor:
    """Guided word logits ``[B, L, V]``: mirror descent on the word probabilities of the x_0 estimate.

    An update adds -scale * d energy / d p to the logits, which is exponentiated gradient descent on the
    simplex (Beck and Teboulle 2003): unlike a step on the logits it also reaches words that the model finds
    unlikely so far. To first order in the energy it multiplies each word's probability by that of the
    constraint given the word. It needs no backward pass through the denoiser.
    """
    for _ in range(guidance.updates):
        slope = _gradient(energy, logits.softmax(-1))
        # Only differences between the words of a position matter.
        slope = slope - slope.mean(-1, keepdim=True)
        logits = logits - (guidance.scale / guidance.updates * slope).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    return logits


def shift_latent(x0: Tensor, x_t: Tensor, alphabar: Tensor, energy: EnergyOfLatent, guidance: Guidance) -> Tensor:
    """Guided x_0 estimate: classifier guidance (Dhariwal and Nichol 2021, algorithm 2) in terms of x_0.

    Adding -grad E to the score of x_t moves the x_0 estimate by -(1 - alphabar) / sqrt(alphabar) * grad E,
    for ``alphabar [B, 1, 1]``. One backward pass through the classifier at x_t.
    """
    shift = guidance.scale * (1 - alphabar) / alphabar.sqrt() * _gradient(energy, x_t)
    return x0 - shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)


def langevin(x: Tensor, mean: Tensor, variance: Tensor, energy: EnergyOfLatent, guidance: Guidance) -> Tensor:
    """Guided x_s: Adagrad on ``fluency * ||mean - x||^2 / variance + energy`` (Li et al. 2022, section 5.1).

    Args:
        x, mean: ``[B, L, D]``, the draw and the mean it was drawn around; variance: ``[B, 1, 1]``.
    """
    x = x.detach().clone()
    squares = torch.zeros_like(x)
    for _ in range(guidance.updates):
        slope = _gradient(energy, x) + 2 * guidance.fluency * (x - mean) / variance.clamp(min=1e-6)
        squares += slope.square()
        x = x - guidance.step_size * slope / (squares.sqrt() + 1e-10)
    return x
