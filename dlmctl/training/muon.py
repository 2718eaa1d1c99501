"""Muon: orthogonalised momentum (Jordan 2024, https://kellerjordan.github.io/posts/muon/).

As ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``, with two differences. A parameter that stacks several
matrices, such as the query, key and value matrices of a fused layer, is split, and each part is orthogonalised by
itself. All matrices of one shape are orthogonalised together, so that a step takes as many calls as there are shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Of the quintic iteration, chosen by Jordan for its slope at zero, and the number of iterations.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# An orthogonal matrix times this and the square root of its longer side has entries as large as AdamW's updates
# (Liu et al. 2025, "Muon is scalable for LLM training", eq. 4), so that both optimisers can share one learning rate.
RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum over matrices ``[R, C]``.

    Args:
        parameters: each parameter with the row counts of the matrices that it stacks, ``(R,)`` for a single one.
        lr: the learning rate; weight_decay: decoupled.
    """

    def __init__(
        self, parameters: Iterable[tuple[nn.Parameter, tuple[int, ...]]], lr: float, weight_decay: float
    ) -> None:
        by_parts: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for parameter, parts in parameters:
            by_parts.setdefault(parts, []).append(parameter)
        groups = [{"params": stacked, "parts": parts} for parts, stacked in by_parts.items()]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        assert closure is None
        stacks: dict[tuple[float, torch.Size], list[tuple[Tensor, Tensor]]] = {}
        for group in self.param_groups:
            for matrix, update in self._decayed_matrices(group):
                stacks.setdefault((group["lr"], matrix.shape), []).append((matrix, update))
        for (lr, shape), stack in stacks.items():
            matrices, updates = zip(*stack, strict=True)
            directions = orthogonalise(torch.stack(updates)).to(matrices[0].dtype)
            torch._foreach_add_(list(matrices), list(directions.unbind()), alpha=-lr * RMS * max(shape) ** 0.5)

    def _decayed_matrices(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Decay the weights of a group and yield its matrices, each with its momentum update."""
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        gradients = [parameter.grad for parameter in parameters]
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for parameter, update in zip(parameters, torch._foreach_lerp(gradients, momenta, MOMENTUM), strict=True):
            yield from zip(parameter.split(group["parts"]), update.split(group["parts"]), strict=True)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrices to ``[N, R, C]``, in bfloat16; singular values become 0.5 to 1.5.

    Five Newton-Schulz iterations (Jordan 2024).
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16().mT if is_tall else matrices.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
