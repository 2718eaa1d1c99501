"""Samplers of the Gaussian family: one function each, for the mean and variance of a reverse step.

A sampler knows nothing of words or controls. Its rule maps x_t and the x_0 estimate ``[B, L, D]``, guided or not, and
the times t and s ``[B]`` to the mean ``[B, L, D]`` and the variance ``[B, 1, 1]`` of x_s. The variance, in float64, is
on the device of the times, ideally the CPU: testing whether it is 0 then needs no GPU synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlmctl.diffusion.process import one_step, posterior, to_like
from dlmctl.diffusion.schedule import Schedule

Moments = tuple[Tensor, Tensor]
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Moments]
"""x_t, x_0 estimate, t, s to mean and variance of x_s."""


def ancestral_moments(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Moments:
    """Mean ``[B, L, D]`` and variance ``[B, 1, 1]`` of p(x_s | x_t) (Ho et al. 2020, section 3.2).

    The variance is the larger of the two choices, beta of the step; in the last step it is the posterior variance of
    the step before it (Nichol and Dhariwal 2021).
    """
    mean, _ = posterior(schedule, x0, x_t, t, s)
    stride = one_step(schedule)
    _, last_variance = posterior(schedule, x0, x_t, torch.full_like(t, 2 * stride), torch.full_like(t, stride))
    beta = (1 - schedule.alphabar(t) / schedule.alphabar(s)).reshape(-1, 1, 1)
    return mean, torch.where((s <= 0).reshape(-1, 1, 1), last_variance, beta)


def ancestral(schedule: Schedule, eta: float = 1.0) -> Rule:
    """DDPM sampling (Ho et al. 2020, algorithm 2). ``eta`` scales the standard deviation of each step."""

    def rule(x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Moments:
        mean, variance = ancestral_moments(schedule, x0, x_t, t, s)
        return mean, variance * eta**2

    return rule


def ddim(schedule: Schedule, eta: float = 0.0) -> Rule:
    """DDIM (Song, Meng and Ermon 2021, eq. 12 and 16): eta 0 is deterministic, eta 1 has the DDPM variance."""

    def rule(x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Moments:
        a_t, a_s = (schedule.alphabar(time).reshape(-1, 1, 1) for time in (t, s))
        variance = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        scales = torch.stack([a_t.sqrt(), (1 - a_t).sqrt(), a_s.sqrt(), (1 - a_s - variance).clamp(min=0).sqrt()])
        signal_t, noise_t, signal_s, noise_s = to_like(scales, x_t)
        return signal_s * x0 + noise_s * ((x_t - signal_t * x0) / noise_t), variance

    return rule


def dpmpp_2m(schedule: Schedule, eta: float = 0.0) -> Rule:
    """DPM-Solver++(2M) with data prediction (Lu et al. 2022, algorithm 2), deterministic.

    Each step extrapolates x_0 linearly in lambda = log(alpha / sigma) from the current and the previous estimate. The
    first step and the last, where lambda is infinite, are first order. The rule stores the previous estimate, so it
    serves a single walk.

    Raises:
        ValueError: ``eta`` is not 0.
    """
    if eta:
        raise ValueError("dpmpp_2m is deterministic; eta must be 0")
    history: list[tuple[Tensor, Tensor]] = []

    def rule(x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Moments:
        a_t, a_s = (schedule.alphabar(time).reshape(-1, 1, 1) for time in (t, s))
        no_variance = torch.zeros(len(x_t), 1, 1, device=t.device, dtype=torch.float64)
        if float(s.max()) <= 0:
            return x0, no_variance
        h = 0.5 * (torch.logit(a_s) - torch.logit(a_t))
        estimate = x0
        if history:
            last_x0, last_h = history[0]
            estimate = x0 + to_like(h / (2 * last_h), x0) * (x0 - last_x0)
        history[:] = [(x0, h)]
        ratio = to_like(((1 - a_s) / (1 - a_t)).sqrt(), x_t)
        return ratio * x_t - to_like(a_s.sqrt() * torch.expm1(-h), x_t) * estimate, no_variance

    return rule


SAMPLERS: dict[str, Callable[[Schedule, float], Rule]] = {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m}
