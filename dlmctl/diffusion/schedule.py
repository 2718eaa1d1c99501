"""Noise schedules: how much signal is left at time t.

Time is continuous in [0, 1]: ``alphabar(0) = 1`` is clean text and ``alphabar(1)`` is almost pure noise
(x_t = sqrt(alphabar) x_0 + sqrt(1 - alphabar) noise). The discrete betas of Diffusion-LM (Li et al. 2022)
and of improved DDPM (Nichol and Dhariwal 2021) appear only here: a schedule with ``steps`` reproduces the
T-step process of an original checkpoint on the grid t = (k + 1) / T, k = 0 .. T - 1.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dlmctl.models.numerics import in_float64

ScheduleName = Literal["linear", "cosine", "sqrt", "trunc_cos", "trunc_lin", "pw_lin"]

# Lower limit of continuous schedules; it keeps divisions by sqrt(alphabar) finite.
ALPHABAR_FLOOR = 1e-5
MAX_BETA = 0.999
# The additive 0.01 of trunc_lin and pw_lin does not scale with T, so they have no continuous limit.
STEPS_WITHOUT_LIMIT = 2000


def _sqrt(t: float) -> float:
    return 1.0 - math.sqrt(t + 1e-4)


def _cosine(t: float) -> float:
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


def _trunc_cos(t: float) -> float:
    return math.cos((t + 0.1) / 1.1 * math.pi / 2) ** 2


def betas(name: ScheduleName, steps: int) -> np.ndarray:
    """The discrete variances beta_k, k = 0 .. steps - 1, as float64.

    Sources: ``linear``: Ho et al. 2020; ``cosine``: Nichol and Dhariwal 2021; ``sqrt``: Li et al. 2022
    (section 4.2 and appendix A); ``trunc_cos``, ``trunc_lin`` and ``pw_lin``: the code of Diffusion-LM.

    Raises:
        ValueError: the name is unknown or ``steps`` is too small for the schedule.
    """
    scale = 1000.0 / steps
    start, end, shift = scale * 1e-4, scale * 0.02, 0.01
    if name in ("linear", "trunc_lin", "pw_lin") and steps <= 20:  # end would reach 1
        raise ValueError(f"the schedule {name} needs more than 20 steps, got {steps}")
    if name == "linear":
        return np.linspace(start, end, steps)
    if name == "trunc_lin":
        return np.linspace(start + shift, end + shift, steps)
    if name == "pw_lin":
        return np.concatenate([np.linspace(start + shift, start, 10), np.linspace(start, end, steps - 10)])
    signal = {"sqrt": _sqrt, "cosine": _cosine, "trunc_cos": _trunc_cos}.get(name)
    if signal is None:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(get_args(ScheduleName))}")
    levels = np.array([signal(k / steps) for k in range(steps + 1)])
    if name == "trunc_cos":  # includes the noise already present at t = 0
        levels = np.concatenate([[1.0], levels[:-1]])
    # The sqrt schedule runs out of signal just before t = 1, where the cap applies.
    uncapped = 1.0 - levels[1:] / np.maximum(levels[:-1], 1e-12)
    return np.minimum(uncapped, MAX_BETA)


class Schedule:
    """alphabar(t) of one named schedule.

    Args:
        name: one of ``linear cosine sqrt trunc_cos trunc_lin pw_lin``.
        steps: None for the continuous schedule; T for the discrete process of an original checkpoint.
    """

    def __init__(self, name: ScheduleName = "sqrt", steps: int | None = None) -> None:
        self.name, self.steps = name, steps
        grid = steps
        if grid is None:
            grid = STEPS_WITHOUT_LIMIT if name in ("trunc_lin", "pw_lin") else 20_000
        log_signal = np.concatenate([[0.0], np.cumsum(np.log1p(-betas(name, grid)))])
        if steps is None:
            # Not a maximum: where alphabar is constant, a reverse step has no posterior and DPM-Solver++ a step of 0.
            log_signal = np.logaddexp(math.log(ALPHABAR_FLOOR), math.log1p(-ALPHABAR_FLOOR) + log_signal)
        self._log_alphabar = {torch.device("cpu"): torch.from_numpy(log_signal)}

    def alphabar(self, t: Tensor | float) -> Tensor:
        """Fraction of signal variance left at ``t`` (any shape, in [0, 1]), as float64 of the same shape.

        Between grid points log alphabar is interpolated linearly.
        """
        times = in_float64(t)
        if times.device not in self._log_alphabar:
            self._log_alphabar[times.device] = self._log_alphabar[torch.device("cpu")].to(times.device)
        table = self._log_alphabar[times.device]
        position = times.clamp(0, 1) * (len(table) - 1)
        # A grid point such as 7/2000 must hit its own entry despite rounding.
        position = torch.where((position - position.round()).abs() < 1e-4, position.round(), position)
        low = position.floor().clamp(max=len(table) - 2).long()
        return torch.lerp(table[low], table[1:][low], position - low).exp()

    def network_time(self, t: Tensor | float) -> Tensor:
        """``t`` on the 0..1000 scale that denoisers receive (Li et al. 2022: k * 1000 / T), float32."""
        times = in_float64(t)
        offset = 1.0 / self.steps if self.steps else 0.0
        return ((times - offset).clamp(min=0) * 1000.0).float()

    def times(self, steps: int, *, first: float = 1.0, last: float = 0.0, spacing: float = 1.0) -> Tensor:
        """``steps + 1`` descending times from ``first`` to ``last``, then 0, as float64.

        With ``last > 0`` the final stride goes from ``last`` straight to clean text: at low noise the words no longer
        change, so steps there are wasted. A fraction u of the strides covers a fraction u^``spacing`` of the way: 1
        makes strides equal; above 1 they are shorter at high noise, where most words are decided (for which reason
        Dieleman et al. 2022, section 3.3, warp time).
        """
        if steps < 1:
            raise ValueError(f"at least one step is needed, got {steps}")
        strides = steps if last <= 0 else max(1, steps - 1)
        progress = torch.linspace(0.0, 1.0, strides + 1, dtype=torch.float64) ** spacing
        times = first + (max(last, 0.0) - first) * progress
        return times if last <= 0 else torch.cat([times[:steps], torch.zeros(1, dtype=torch.float64)])

    def respaced_times(self, steps: int) -> Tensor:
        """The times that Diffusion-LM's respacing to ``steps`` visits, descending and ending in 0, float64.

        The selected k are evenly spaced from 0 to T - 1 and rounded (Nichol and Dhariwal 2021, section 4).

        Raises:
            ValueError: the schedule is continuous.
        """
        if self.steps is None:
            raise ValueError("respacing needs a discrete schedule; use times()")
        selected = [round(k) for k in np.linspace(self.steps - 1, 0, steps)]
        return torch.tensor([*((k + 1) / self.steps for k in selected), 0.0], dtype=torch.float64)
