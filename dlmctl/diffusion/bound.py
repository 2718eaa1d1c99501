"""The variational bound on the negative log-likelihood of a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.process import _wide, q_sample
from dlmctl.models.interface import Conditioning


class Bound(NamedTuple):
    """Parts of the variational bound, in nats: ``prior [B, L]``, ``rounding_nats [B, L]``, and ``diffusion [K, B, L]``
    for K steps of the process, which start at ``times [K, B]``."""

    prior: Tensor
    diffusion: Tensor
    rounding_nats: Tensor
    times: Tensor

    @property
    def total(self) -> Tensor:
        """With all steps of the process, an upper bound on -log p(words), ``[B]``."""
        return (self.prior + self.diffusion.sum(0) + self.rounding_nats).sum(1)


@torch.no_grad()
def likelihood_bound(
    model: DiffusionLM,
    ids: Tensor,
    steps: int,
    noise: Callable[[Tensor], Tensor],
    picked: Tensor | None = None,
    conditioning: Conditioning | None = None,
) -> Bound:
    """The variational bound of a ``steps``-step reverse process (Ho et al. 2020, eq. 5; Kingma et al. 2021, eq. 13).

    With q's own posterior variance, the KL of the step t to s is (SNR(s) - SNR(t)) / 2 times the squared
    error of the x_0 estimate. The words are scored given the least noisy latent of the process.

    Args:
        ids: ``[B, L]``; all positions count, PAD too.
        noise: standard normal noise like a latent.
        picked: ``[K, B]``, for each sequence the numbers of the steps to compute, of 0 (t = 1) to ``steps`` - 2; all of
            them if not given.
        conditioning: what the texts are about.
    """
    schedule, clean = model.schedule, model.embed(ids)
    times = schedule.times(steps).to(ids.device)
    if picked is None:
        picked = torch.arange(steps - 1, device=ids.device)[:, None].expand(-1, len(ids))
    last = schedule.alphabar(torch.ones(len(ids), device=ids.device, dtype=torch.float64))
    per_coordinate = 0.5 * (_wide(last, clean) * clean.square() - _wide(last + torch.log1p(-last), clean))
    gains = []
    for number in picked.to(ids.device):
        t, s = times[number], times[number + 1]
        snr_t, snr_s = (a / (1 - a) for a in (schedule.alphabar(t), schedule.alphabar(s)))
        x_t = q_sample(schedule, clean, t, noise(clean))
        previous = model.predict(x_t, t, None, conditioning).x0 if model.config.self_conditioning else None
        estimate = model.predict(x_t, t, previous, conditioning).x0
        gains.append((0.5 * (snr_s - snr_t)).to(clean)[:, None] * (clean - estimate).square().sum(2))
    first = times[-2].expand(len(ids))
    prediction = model.predict(q_sample(schedule, clean, first, noise(clean)), first, None, conditioning)
    logits = prediction.logits if prediction.logits is not None else model.rounding_logits(prediction.x0)
    rounding_nats = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    diffusion = torch.stack(gains) if gains else clean.new_zeros(0, *ids.shape)
    return Bound(per_coordinate.sum(2), diffusion, rounding_nats, times[picked])
