"""Guidance of word logits by the controls' energies.

``gradient`` is the controls' summed d energy / d at for any point ``at``. Energies are sums over a sample in nats, so a
step does not depend on the other samples of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dlmctl.recipe.settings import Guidance

# A bound on the change of any one logit or coordinate in one update, so that even a very steep energy does not throw a
# sample off.
LARGEST_SHIFT = 20.0

# Default numbers of gradient updates at each step. Where evidence on every word already says most of what the
# gradients would, one update is as good. Measured, see benchmarks/speed.md.
UPDATES, UPDATES_WITH_EVIDENCE = 3, 1

Gradient = Callable[[Tensor], Tensor]
"""Word probabilities ``[B, L, V]``, or latents ``[B, L, D]``, to the energy's gradient there."""


def strength(guidance: Guidance, t: float) -> float:
    """The scale of guidance at time ``t``; 0 outside the interval in which it acts."""
    return guidance.scale if guidance.until <= t <= guidance.since else 0.0


def updates_of(guidance: Guidance, *, with_evidence: bool) -> int:
    """The number of gradient updates at each step."""
    return guidance.updates or (UPDATES_WITH_EVIDENCE if with_evidence else UPDATES)


def moved_logits(logits: Tensor, gradient: Gradient, scale: float, updates: int) -> Tensor:
    """Guided word logits ``[B, L, V]``: mirror descent on the word probabilities of the x_0 estimate.

    An update adds -scale * d energy / d p to the logits, which is exponentiated gradient descent on the simplex (Beck
    and Teboulle 2003): unlike a step on the logits, it also reaches words that the model finds unlikely so far. To
    first order in the energy, it multiplies each word's probability by that of the constraint given the word. It needs
    no backward pass through the denoiser.
    """
    size = scale / updates
    # Within the range of float32.
    largest = min(LARGEST_SHIFT / size, 1e30)
    for _ in range(updates):
        change = gradient(logits.softmax(-1))
        # Only differences between the words of a position matter.
        change = change - change.mean(-1, keepdim=True)
        logits = logits.sub(change.clamp(-largest, largest), alpha=size)
    return logits
