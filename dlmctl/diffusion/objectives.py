"""Training objectives: that of Diffusion-LM (Li et al. 2022), and the cross-entropy of the words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmctl.diffusion.model import DiffusionLM
from dlmctl.diffusion.process import _wide, one_step, q_sample
from dlmctl.models.interface import Conditioning
from dlmctl.models.word_head import WordHead, expected_embeddings, token_nats


def paper_loss(
    model: DiffusionLM,
    ids: Tensor,
    t: Tensor,
    noise: Tensor,
    noise_x0: Tensor,
    conditioning: Conditioning | None = None,
) -> dict[str, Tensor]:
    """The end-to-end objective of Li et al. 2022 (eq. 2), per example.

    Args:
        ids: ``[B, L]``.
        t: ``[B]``.
        noise, noise_x0: ``[B, L, D]``, standard normal, for x_t and for x_0.
        conditioning: labels or sources of the texts.

    Returns:
        ``loss`` and ``mse``, each ``[B]``, in squared latent units plus nats per position.
    """
    schedule = model.schedule
    clean = model.embed(ids)
    first_t = torch.full_like(t, one_step(schedule))
    x0 = clean + _wide((1 - schedule.alphabar(first_t)).sqrt(), clean) * noise_x0
    x_t = q_sample(schedule, x0, t, noise)
    prediction = model.predict(x_t, t, _self_condition(model, x_t, t, conditioning), conditioning)
    target, estimate = x0, prediction.x0
    if model.config.prediction == "epsilon":
        alphabar = schedule.alphabar(t)
        target = noise
        estimate = (x_t - _wide(alphabar.sqrt(), x_t) * prediction.x0) / _wide((1 - alphabar).sqrt(), x_t)
    mse = (target - estimate).square().mean((1, 2))
    mse = torch.where(t < 1.5 * first_t, (clean - prediction.x0).square().mean((1, 2)), mse)
    prior = (_wide(schedule.alphabar(torch.ones_like(t)).sqrt(), x0) * x0).square().mean((1, 2))
    return {"loss": mse + prior + _rounding_nats(model, x0, ids).mean(1), "mse": mse}


def cross_entropy_loss(
    model: DiffusionLM, ids: Tensor, t: Tensor, noise: Tensor, conditioning: Conditioning | None = None
) -> dict[str, Tensor]:
    """Cross-entropy of the words given x_t (Dieleman et al. 2022, section 3.1), per example.

    Args:
        ids: ``[B, L]``.
        t: ``[B]``.
        noise: ``[B, L, D]``, standard normal.
        conditioning: labels or sources of the texts.

    Returns:
        ``loss [B]``, nats per position.
    """
    x_t = q_sample(model.schedule, model.embed(ids), t, noise)
    previous_x0 = _self_condition(model, x_t, t, conditioning)
    features_and_head = model.word_features(x_t, t, previous_x0, conditioning)
    if features_and_head is not None:
        features, head = features_and_head
        return {"loss": token_nats(features.flatten(0, 1), head, ids.flatten()).view(ids.shape).mean(1)}
    logits = model.predict(x_t, t, previous_x0, conditioning).logits
    assert logits is not None
    return {"loss": F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape).mean(1)}


def _rounding_nats(model: DiffusionLM, x0: Tensor, ids: Tensor) -> Tensor:
    """-log p(words | x_0) ``[B, L]``."""
    if model.config.rounding == "dot":
        head = WordHead(model.embeddings, model.rounding_bias)
        return token_nats(x0.flatten(0, 1), head, ids.flatten()).view(ids.shape)
    return F.cross_entropy(model.rounding_logits(x0).transpose(1, 2), ids, reduction="none")


def _self_condition(model: DiffusionLM, x_t: Tensor, t: Tensor, conditioning: Conditioning | None) -> Tensor | None:
    """In training, an x_0 estimate to condition on, for half of the batches (Chen et al. 2023, algorithm 1)."""
    if not (model.config.self_conditioning and model.training) or torch.rand(()).item() < 0.5:
        return None
    with torch.no_grad():
        features_and_head = model.word_features(x_t, t, None, conditioning)
        if features_and_head is not None:
            return expected_embeddings(*features_and_head, model.embeddings)
        return model.predict(x_t, t, None, conditioning).x0
