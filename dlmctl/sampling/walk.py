"""The walk from noise to text: one loop for every family."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dlmctl.diffusion.family import Family, Prediction, StepResult
from dlmctl.diffusion.layout import Layouts
from dlmctl.diffusion.noise import SampleNoise
from dlmctl.errors import UserError
from dlmctl.processes import raise_pending_signal


class Step(NamedTuple):
    """One reverse step from t to s: ``x`` is the new state x_s, drawn given the ``estimate``."""

    number: int
    steps: int
    t: float
    s: float
    x: Tensor
    estimate: Prediction

    def detached(self) -> Step:
        """A copy that stays valid: a recorded next step overwrites this step's estimate."""
        if not self.x.is_cuda:
            return self
        x0, logits = (None if tensor is None else tensor.clone() for tensor in (self.estimate.x0, self.estimate.logits))
        assert x0 is not None
        return self._replace(estimate=Prediction(lambda: x0, logits))


OnStep = Callable[[Step], Tensor | None]
"""Receives every step; a state that it returns, of the same shape, replaces ``step.x``."""


class Steer(Protocol):
    """Computes the guided estimate of a whole batch, and may move each draw. Times ``t [B]`` are on the CPU."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction: ...

    def after(self, moved: StepResult, s: float) -> Tensor: ...


class Resampling(Protocol):
    """Replaces some texts of a batch by others during the walk (``sampling.particles``)."""

    def rows(self, number: int, estimate: Prediction, finished: Tensor | None) -> Tensor | None:
        """The texts ``[B]`` to continue with at a step, already passed on to the steering; None if all stay.

        ``finished [B]`` says which have nothing left to be drawn, None that all have.
        """

    def moved(self, log_ratio: Tensor | None) -> None:
        """Receives the log ratio of every draw, see ``StepResult``."""


def walk(
    family: Family,
    steer: Steer,
    layouts: Layouts,
    times: Tensor,
    noise: SampleNoise,
    on_step: OnStep | None = None,
    resampling: Resampling | None = None,
) -> Tensor:
    """The states ``[B, L, ...]`` at the last of ``times``, which descend from 1.

    Raises:
        UserError: ``on_step`` returns something that is no state.
    """
    x = family.start(layouts, noise)
    steps = len(times) - 1
    for number, (t_value, s_value) in enumerate(pairwise(times.tolist())):
        raise_pending_signal()
        # Resampling counts the steps, and weighs all that is written.
        if resampling is None and family.skips(x, noise):
            continue
        # On the CPU, where reading them costs nothing; only a few numbers per text are computed from them.
        t, s = (torch.full((len(x),), value, dtype=torch.float64) for value in (t_value, s_value))
        estimate = steer(x, t)
        rows = resampling.rows(number, estimate, family.finished(x)) if resampling is not None else None
        if rows is not None:
            x, estimate = x.index_select(0, rows), estimate.take(rows)
            family.take(rows)
        moved = family.step(x, estimate, t, s, noise)
        if resampling is not None:
            resampling.moved(moved.log_ratio)
        x = steer.after(moved, s_value)
        replacement = on_step(Step(number, steps, t_value, s_value, x, estimate)) if on_step is not None else None
        x = x if replacement is None else _state_like(x, replacement)
    return x


def _state_like(x: Tensor, replacement: Any) -> Tensor:
    """The state that ``on_step`` returned, unless it is none: callbacks such as the ``update`` of a bar return other
    values."""
    if not isinstance(replacement, Tensor) or replacement.shape != x.shape:
        returned = list(replacement.shape) if isinstance(replacement, Tensor) else repr(replacement)
        what = f"must return None, or a state of the shape {list(x.shape)} to go on with, not {returned}."
        raise UserError(what, where="on_step")
    return replacement
