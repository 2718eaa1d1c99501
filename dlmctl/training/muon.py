"""Muon: momentum, made orthogonal (Jordan 2024, https://kellerjordan.github.io/posts/muon/).

As ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``, but a matrix that holds several, one over the other, is
updated as these: the query, key and value matrices of a fused layer are each made orthogonal by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Of the quintic iteration, chosen by Jordan for its slope at zero, and how often it is taken.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# An orthogonal matrix times this and the root of its longer side has entries of the size that AdamW's updates have
# (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4), so that one learning rate serves both optimisers.
RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum over matrices ``[R, C]``.

    Args:
        parameters: each matrix with the numbers of rows of the matrices that it holds, ``(R,)`` where it is one.
        lr: the learning rate; weight_decay: decoupled.
    """

    def __init__(
        self, parameters: Iterable[tuple[nn.Parameter, tuple[int, ...]]], lr: float, weight_decay: float
    ) -> None:
        by_parts: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter, parts in parameters:
            by_parts.setdefault(parts, []).append(parameter)
        groups = [{"params": found, "parts": parts} for parts, found in by_parts.items()]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        update = gradient.lerp(momentum, MOMENTUM)
        for piece, part in zip(parameter.split(group["parts"]), update.split(group["parts"]), strict=True):
            piece.add_(orthogonal(part), alpha=-group["lr"] * RMS * max(part.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to ``matrix [R, C]``, in bfloat16: its singular values become 0.5 to 1.5.

    Five Newton-Schulz iterations (Jordan 2024).
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16().T if tall else matrix.bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
