"""Samplers: one function each, all of one signature.

A sampler walks from noise to text through descending times. It knows nothing of words or controls: ``denoise``
gives the x_0 estimate (guided or not), ``on_step`` sees every step and may move the latent.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from dlmctl.diffusion.process import one_step, posterior
from dlmctl.diffusion.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""x_t ``[B, L, D]`` and times ``[B]`` to the x_0 estimate ``[B, L, D]``."""

Noise = Callable[[Tensor], Tensor]
"""Standard normal noise like a latent."""


class Step(NamedTuple):
    """One reverse step from t to s: ``x`` is the new latent x_s, drawn around ``mean`` with ``variance``."""

    number: int
    steps: int
    t: float
    s: float
    x: Tensor
    x0: Tensor
    mean: Tensor
    variance: Tensor


OnStep = Callable[[Step], Tensor | None]
"""Sees every step; a latent it returns takes the place of ``step.x``."""


class Sampler(Protocol):
    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        times: Tensor,
        schedule: Schedule,
        noise: Noise,
        *,
        eta: float = ...,
        on_step: OnStep | None = ...,
    ) -> Tensor: ...


Rule = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""x_t, x_0 estimate, t ``[B]``, s ``[B]`` to mean and variance of x_s."""


def _walk(denoise: Denoise, x: Tensor, times: Tensor, noise: Noise, on_step: OnStep | None, rule: Rule) -> Tensor:
    steps = len(times) - 1
    for number, (t_value, s_value) in enumerate(pairwise(times.tolist())):
        t, s = (torch.full((len(x),), value, dtype=torch.float64, device=x.device) for value in (t_value, s_value))
        x0 = denoise(x, t)
        mean, variance = rule(x, x0, t, s)
        x = mean if s_value == 0 or not variance.any() else mean + variance.sqrt() * noise(mean)
        if on_step is not None:
            moved = on_step(Step(number, steps, t_value, s_value, x, x0, mean, variance))
            x = x if moved is None else moved
    return x


def ancestral_moments(
    schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor, variance: Literal["large", "small"] = "large"
) -> tuple[Tensor, Tensor]:
    """Mean ``[B, L, D]`` and variance ``[B, 1, 1]`` of p(x_s given x_t) (Ho et al. 2020, section 3.2).

    ``large`` is beta of the step, ``small`` the posterior variance. The large variance of the last step is the
    posterior variance of the step before it (Nichol and Dhariwal 2021).
    """
    mean, small = posterior(schedule, x0, x_t, t, s)
    if variance == "small":
        return mean, small
    stride = one_step(schedule)
    _, second = posterior(schedule, x0, x_t, torch.full_like(t, 2 * stride), torch.full_like(t, stride))
    beta = (1 - schedule.alphabar(t) / schedule.alphabar(s)).to(x_t.device, x_t.dtype).reshape(-1, 1, 1)
    return mean, torch.where((s <= 0).reshape(-1, 1, 1), second, beta)


def ancestral(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    schedule: Schedule,
    noise: Noise,
    *,
    eta: float = 1.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """DDPM sampling (Ho et al. 2020, algorithm 2). ``eta`` scales the standard deviation of each draw."""

    def rule(x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = ancestral_moments(schedule, x0, x_t, t, s)
        return mean, variance * eta**2

    return _walk(denoise, x, times, noise, on_step, rule)


def ddim(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    schedule: Schedule,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """DDIM (Song, Meng and Ermon 2021, eq. 12 and 16): eta 0 is deterministic, eta 1 has the DDPM variance."""

    def rule(x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        a_t, a_s = (schedule.alphabar(time).to(x_t.device, x_t.dtype).reshape(-1, 1, 1) for time in (t, s))
        epsilon = (x_t - a_t.sqrt() * x0) / (1 - a_t).sqrt()
        variance = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        return a_s.sqrt() * x0 + (1 - a_s - variance).clamp(min=0).sqrt() * epsilon, variance

    return _walk(denoise, x, times, noise, on_step, rule)


def dpmpp_2m(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    schedule: Schedule,
    noise: Noise,
    *,
    eta: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """DPM-Solver++(2M) on the data prediction (Lu et al. 2022, algorithm 2), deterministic.

    Each step extrapolates x_0 from this and the previous estimate in lambda = log(alpha / sigma). The first
    step and the last, where lambda is infinite, are of first order.

    Raises:
        ValueError: ``eta`` is not 0.
    """
    if eta:
        raise ValueError("dpmpp_2m is deterministic; eta must be 0")
    before: list[tuple[Tensor, Tensor]] = []

    def rule(x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        a_t, a_s = (schedule.alphabar(time).to(x_t.device).reshape(-1, 1, 1) for time in (t, s))
        none = torch.zeros(len(x_t), 1, 1, device=x.device, dtype=x.dtype)
        if bool((s <= 0).all()):
            return x0, none
        h = 0.5 * (torch.logit(a_s) - torch.logit(a_t))
        estimate = x0
        if before:
            last_x0, last_h = before[0]
            estimate = x0 + (h / (2 * last_h)).to(x0) * (x0 - last_x0)
        before[:] = [(x0, h)]
        ratio = ((1 - a_s) / (1 - a_t)).sqrt().to(x_t)
        return ratio * x_t - (a_s.sqrt() * torch.expm1(-h)).to(x_t) * estimate, none

    return _walk(denoise, x, times, noise, on_step, rule)


SAMPLERS: dict[str, Sampler] = {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m}
