"""Reverse steps of masked diffusion: one function each, all of one signature.

A step turns a canvas with MASK at its open places into one with fewer. It knows nothing of networks or controls: the
logits come to it guided, so what is committed first follows the guided confidence. Nothing in it waits for a GPU.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Logarithms of probabilities are cut here before they are multiplied by 0.
LEAST_LOG = -80.0


class Stride(NamedTuple):
    """A reverse step from time ``t`` to ``s``, of which there are ``left``, this one included.

    Walks that count what they write write at most ``most`` places in it, where that is known.
    """

    t: float
    s: float
    left: int
    most: int | None = None


class StepNoise(NamedTuple):
    """Uniform numbers in [0, 1) ``[B, L]``: ``words`` choose what is written, ``places`` where."""

    words: Tensor
    places: Tensor


class WalkSettings(NamedTuple):
    """How words are drawn and places chosen.

    Attributes:
        mask_id: the id of MASK.
        temperature: of the words; 0 takes the likeliest.
        min_p: words below this share of the likeliest one's probability are left out (Nguyen et al. 2024).
        remask: the most that a committed word may be masked again with in a step (ReMDM's ``eta_cap``).
    """

    mask_id: int
    temperature: float = 1.0
    min_p: float = 0.0
    remask: float = 0.0


class Walk(Protocol):
    """A reverse step.

    Args:
        canvas: word ids ``[B, L]``, MASK at open places; also any part of the places, gathered.
        logits: ``[B, L, V]``, guided, -inf for words that cannot stand where they are.
        free: bool ``[B, L]``, the places that are the walk's to write; pinned words are none of them.
        stride: times of the step.
        noise: of the step.

    Returns:
        The new canvas ``[B, L]``; after the last stride no free place is masked.
    """

    def __call__(
        self, canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
    ) -> Tensor: ...


def strides(steps: int) -> list[Stride]:
    """Equal strides from t = 1 to 0.

    Raises:
        ValueError: there is no step.
    """
    if steps < 1:
        raise ValueError(f"at least one step is needed, got {steps}")
    return [Stride((steps - done) / steps, (steps - done - 1) / steps, steps - done) for done in range(steps)]


def ancestral(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Tensor:
    """MDLM's ancestral step (Sahoo et al. 2024, eq. 6) and Dream's ``origin``: each open place on its own.

    q_s = ((t - s) p + s delta_mask) / t.
    """
    return remasking(canvas, logits, free, stride, noise, settings._replace(remask=0.0))


def remasking(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Tensor:
    """ReMDM's step with a cap (Wang et al. 2025, eq. 5 and section 4.1): a committed word may be masked again.

    With alpha = 1 - t, sigma = min(remask, (1 - alpha_s) / alpha_t, 1): a committed word is masked with probability
    sigma, an open place is written with (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t). Sigma 0 is MDLM.
    """
    clean_t, clean_s = 1 - stride.t, 1 - stride.s
    sigma = min(settings.remask, stride.s / clean_t if clean_t else 1.0, 1.0)
    # At s = 0 the quotient is 1 but for rounding.
    write = (clean_s - (1 - sigma) * clean_t) / stride.t if stride.s > 0 else 1.0
    is_open = free & (canvas == settings.mask_id)
    words = drawn(word_weights(logits, settings), noise.words)
    written = torch.where(is_open & (noise.places < write), words, canvas)
    return written.masked_fill(free & ~is_open & (noise.places < sigma), settings.mask_id)


def random_order(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Tensor:
    """LLaDA's random remasking (Nie et al. 2025, algorithm 4): a number of open places a step, whichever they are.

    One word a step, it draws from the model that the any-order bound is about.
    """
    return _commit(canvas, word_weights(logits, settings), noise.places, free, stride, noise, settings)


def low_confidence(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Tensor:
    """LLaDA's low-confidence remasking (Nie et al. 2025, algorithm 5): the words stay that the model holds likeliest.

    Every open place gets a word; its probability is that before temperature and truncation.
    """
    words = drawn(word_weights(logits, settings), noise.words)
    scores = logits.gather(-1, words[..., None])[..., 0] - logits.logsumexp(-1)
    return _commit(canvas, words, scores.exp(), free, stride, noise, settings)


def confidence(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Tensor:
    """Dream's ``maskgit_plus`` (Chang et al. 2022; Ye et al. 2025): as ``low_confidence``, by the probability that the
    word was drawn with."""
    weights = word_weights(logits, settings)
    words = drawn(weights, noise.words)
    scores = weights.gather(-1, words[..., None])[..., 0] / weights.sum(-1)
    return _commit(canvas, words, scores, free, stride, noise, settings)


def margin(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Tensor:
    """Dream's ``topk_margin`` (Kim et al. 2025): first where the likeliest word is furthest ahead of the second."""
    weights = word_weights(logits, settings)
    first, second = weights.topk(2, -1).values.unbind(-1)
    return _commit(canvas, weights, (first - second) / weights.sum(-1), free, stride, noise, settings)


def entropy(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Tensor:
    """Dream's ``entropy`` (Ye et al. 2025): first where the distribution of the word has the least entropy."""
    logs = _relative(logits, settings)
    weights = _truncated(logs.exp(), settings)
    scores = -entropies(weights, logs.clamp_(min=LEAST_LOG))
    return _commit(canvas, weights, scores, free, stride, noise, settings)


WALKS: dict[str, Walk] = {
    "ancestral": ancestral,
    "remasking": remasking,
    "random": random_order,
    "low_confidence": low_confidence,
    "confidence": confidence,
    "margin": margin,
    "entropy": entropy,
}


def _commit(
    canvas: Tensor,
    words: Tensor,
    scores: Tensor,
    free: Tensor,
    stride: Stride,
    noise: StepNoise,
    settings: WalkSettings,
) -> Tensor:
    """The canvas with words at the open places of highest score: of m open places ceil(m / strides left).

    That is floor(m / N), and one more in the first m mod N of N strides (LLaDA, section 2.4).

    Args:
        words: ``[B, L]``, what to write; or weights ``[B, L, V]`` to draw it by, which is done only where it is needed.
        scores: ``[B, L]``.
    """
    is_open = free & (canvas == settings.mask_id)
    most = -(-canvas.shape[1] // stride.left) if stride.most is None else stride.most
    # Stable, so that of two places of equal score the first is taken whatever the width of the batch.
    ranked = scores.masked_fill(~is_open, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = ranked[:, :most]
    counts = -(-is_open.sum(1) // stride.left)
    rows = torch.arange(len(canvas), device=canvas.device)[:, None]
    new = words[rows, places]
    if new.dim() == 3:
        new = drawn(new, noise.words[rows, places])
    chosen = torch.arange(places.shape[1], device=canvas.device) < counts[:, None]
    return canvas.scatter(1, places, torch.where(chosen, new, canvas[rows, places]))


def word_weights(logits: Tensor, settings: WalkSettings) -> Tensor:
    """Probabilities ``[..., V]`` up to a factor, the likeliest word's 1, after temperature and ``min_p``."""
    return _truncated(_relative(logits, settings).exp_(), settings)


def _relative(logits: Tensor, settings: WalkSettings) -> Tensor:
    """Logarithms of the weights ``[..., V]`` before truncation: at most 0, -inf for words that cannot stand there."""
    below = logits - logits.amax(-1, keepdim=True)
    if settings.temperature == 0:
        return below.masked_fill_(below < 0, -torch.inf)
    return below if settings.temperature == 1 else below.div_(settings.temperature)


def _truncated(weights: Tensor, settings: WalkSettings) -> Tensor:
    """``weights [..., V]``, 0 for the words that ``min_p`` leaves out; changed in place."""
    # A single pass; the likeliest word stays whatever the rounding.
    return torch.threshold_(weights, settings.min_p * (1 - 1e-6), 0.0) if settings.min_p > 0 else weights


def entropies(weights: Tensor, logs: Tensor) -> Tensor:
    """Entropies ``[...]`` in nats of the distributions with these weights ``[..., V]``.

    Args:
        logs: their logarithms where they are not 0, finite; overwritten.
    """
    total = weights.sum(-1)
    return total.log() - logs.mul_(weights).sum(-1) / total


def drawn(weights: Tensor, uniform: Tensor) -> Tensor:
    """Ids ``[...]`` drawn by weights ``[..., V]`` with uniform numbers ``[...]``: the inverse of the summed weights.

    A word of weight 0 is never drawn. Over a large vocabulary this is much faster than ``torch.multinomial``. Of
    weights that are no numbers it is some id that there is: that they are none is found when a GPU is done.
    """
    sums = weights.cumsum(-1)
    total = sums[..., -1:]
    # Rounding may give the total itself, which no sum exceeds.
    aim = torch.minimum(uniform[..., None].to(sums) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(sums, aim, right=True)[..., 0].clamp_(max=weights.shape[-1] - 1)


def committed_nats(before: Tensor, after: Tensor, logits: Tensor, mask_id: int, most: int) -> Tensor:
    """-log p of the words ``[B]`` that a step from canvas ``before`` to ``after`` wrote, each by ``logits [B, L, V]``.

    Summed over a walk it is how unlikely the model found the text on the way: free, and as good for choosing among
    candidates as a second look.

    Args:
        most: at least as many places as any row wrote.
    """
    rows, places, wrote = _written(before, after, mask_id, most)
    scores = logits[rows, places].log_softmax(-1)
    words = after[rows, places].clamp(max=logits.shape[-1] - 1)
    nats = -scores.gather(-1, words[..., None])[..., 0]
    return torch.where(wrote, nats, 0.0).sum(1)


def committed_log_ratio(
    before: Tensor, after: Tensor, unguided: Tensor, guided: Tensor, settings: WalkSettings, most: int
) -> Tensor:
    """log p - log q of the words ``[B]`` that a step wrote: p of the model, q of the walk that drew them.

    Both at the temperature of the walk; what truncation leaves out counts in q only. Which places are written follows
    from q alone and has no part in it: every order of writing is one of the model's own.

    Args:
        unguided, guided: logits ``[B, L, V]``; the others as of ``committed_nats``.
    """
    rows, places, wrote = _written(before, after, settings.mask_id, most)
    words = after[rows, places].clamp(max=guided.shape[-1] - 1)[..., None]
    model = (unguided[rows, places] / settings.temperature).log_softmax(-1).gather(-1, words)
    weights = word_weights(guided[rows, places], settings)
    walk = (weights.gather(-1, words) / weights.sum(-1, keepdim=True)).log()
    return torch.where(wrote, (model - walk)[..., 0], 0.0).sum(1)


def _written(before: Tensor, after: Tensor, mask_id: int, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``[B, 1]`` and places ``[B, most]`` with those that a step wrote among them, and which they are."""
    wrote = (before == mask_id) & (after != mask_id)
    places = wrote.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    rows = torch.arange(len(before), device=before.device)[:, None]
    return rows, places, wrote[rows, places]
