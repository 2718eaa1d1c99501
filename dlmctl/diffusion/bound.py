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
    """The terms of the variational bound, in nats.

    Attributes:
        prior: ``[B, L]``.
        diffusion: ``[K, B, L]``, for K steps of the process.
        rounding_nats: ``[B, L]``.
        times: ``[K, B]``, the times at which these steps start.
    """

    prior: Tensor
    diffusion: Tensor
    rounding_nats: Tensor
    times: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of all terms ``[B]``: with all steps of the process, an upper bound on -log p(words)."""
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

    With the posterior variance of q, the KL of the step from t to s is (SNR(s) - SNR(t)) / 2 times the squared
    error of the x_0 estimate. The words are scored given the least noisy latent of the process.

    Args:
        ids: ``[B, L]``; all positions count, including PAD.
        noise: returns standard normal noise shaped like a latent.
        picked: ``[K, B]``, the indices of the steps to compute for each sequence, from 0 (t = 1) to ``steps`` - 2; all
            of them if not given.
        conditioning: labels or sources of the texts.
    """
    schedule, clean = model.schedule, model.embed(ids)
    times = schedule.times(steps).to(ids.device)
    if picked is None:
        picked = torch.arange(steps - 1, device=ids.device)[:, None].expand(-1, len(ids))
    a_1 = schedule.alphabar(torch.ones(len(ids), device=ids.device, dtype=torch.float64))
    per_coordinate = 0.5 * (_wide(a_1, clean) * clean.square() - _wide(a_1 + torch.log1p(-a_1), clean))
    kl_terms = []
    for step in picked.to(ids.device):
        t, s = times[step], times[step + 1]
        snr_t, snr_s = (a / (1 - a) for a in (schedule.alphabar(t), schedule.alphabar(s)))
        x_t = q_sample(schedule, clean, t, noise(clean))
        previous = model.predict(x_t, t, None, conditioning).x0 if model.config.self_conditioning else None
        estimate = model.predict(x_t, t, previous, conditioning).x0
        kl_terms.append((0.5 * (snr_s - snr_t)).to(clean)[:, None] * (clean - estimate).square().sum(2))
    least_t = times[-2].expand(len(ids))
    prediction = model.predict(q_sample(schedule, clean, least_t, noise(clean)), least_t, None, conditioning)
    logits = prediction.logits if prediction.logits is not None else model.rounding_logits(prediction.x0)
    rounding_nats = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    diffusion = torch.stack(kl_terms) if kl_terms else clean.new_zeros(0, *ids.shape)
    return Bound(per_coordinate.sum(2), diffusion, rounding_nats, times[picked])
