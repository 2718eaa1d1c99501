"""The Gaussian forward process and its posterior (Ho et al. 2020).

Latents are ``[batch, length, embed_dim]``, times ``[batch]`` in [0, 1].
"""

from __future__ import annotations

from torch import Tensor

from dlmctl.diffusion.schedule import Schedule


def to_like(values: Tensor, like: Tensor) -> Tensor:
    """``values`` with the device and dtype of ``like``, transferred asynchronously."""
    return values.to(like.device, like.dtype, non_blocking=True)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """Coefficients ``[B]`` with the shape, device and dtype to scale a latent ``like [B, L, D]``."""
    return to_like(values, like).reshape(-1, 1, 1)


def one_step(schedule: Schedule) -> float:
    """The stride of the underlying discrete process, in units of t (T = 2000 where time is continuous)."""
    return 1.0 / (schedule.steps or 2000)


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t = sqrt(alphabar) x_0 + sqrt(1 - alphabar) noise (Ho et al. 2020, eq. 4)."""
    alphabar = schedule.alphabar(t)
    return _wide(alphabar.sqrt(), x0) * x0 + _wide((1 - alphabar).sqrt(), x0) * noise


def posterior(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_s | x_t, x_0) for s < t (Ho et al. 2020, eq. 7).

    The variance is ``[B, 1, 1]``, float64, on the device of the times.
    """
    a_t, a_s = schedule.alphabar(t), schedule.alphabar(s)
    alpha = a_t / a_s
    mean = _wide(a_s.sqrt() * (1 - alpha) / (1 - a_t), x0) * x0 + _wide(alpha.sqrt() * (1 - a_s) / (1 - a_t), x0) * x_t
    return mean, ((1 - alpha) * (1 - a_s) / (1 - a_t)).reshape(-1, 1, 1)


def x0_from_noise(schedule: Schedule, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_0 = (x_t - sqrt(1 - alphabar) noise) / sqrt(alphabar), from an estimate of the noise."""
    alphabar = schedule.alphabar(t)
    return (x_t - _wide((1 - alphabar).sqrt(), x_t) * noise) / _wide(alphabar.sqrt(), x_t)
