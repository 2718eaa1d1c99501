"""Reverse steps of masked diffusion: one function for each sampler, all with the same signature.

A step writes words at some of the open places of a canvas, those with MASK. It knows nothing of networks or controls:
its logits are already guided, so the order of writing follows the guided confidence. No step synchronises with a GPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Log probabilities are clamped to this minimum before they are multiplied by 0.
LEAST_LOG = -80.0


class Stride(NamedTuple):
    """A reverse step from time ``t`` to ``s``; ``left`` steps are left, including this one.

    ``most`` is the most places that a walk with a fixed number of writes writes in this step, and ``places`` the most
    that any walk may write; None if unknown.
    """

    t: float
    s: float
    left: int
    most: int | None = None
    places: int | None = None


class StepNoise(NamedTuple):
    """The random choices of a step.

    Attributes:
        words, places: uniform numbers in [0, 1) ``[B, L]``, which decide which word is written, and where.
        text: ids ``[B, L]`` of a text that was drawn as a whole, whose words are written; None if each word is drawn
            for itself.
    """

    words: Tensor
    places: Tensor
    text: Tensor | None = None


class WalkSettings(NamedTuple):
    """How words are sampled and places chosen.

    Attributes:
        mask_id: the id of MASK.
        temperature: for sampling words; 0 takes the likeliest.
        min_p: words below this fraction of the likeliest word's probability are excluded (Nguyen et al. 2024).
        remask: the highest probability with which a step masks a committed word again (ReMDM's ``eta_cap``).
        threshold: the probability from which a word is written, however many words a step writes (Wu et al. 2025,
            section 3.3); None for no such words. Only for walks whose order is that of the words' probabilities.
    """

    mask_id: int
    temperature: float = 1.0
    min_p: float = 0.0
    remask: float = 0.0
    threshold: float | None = None


class Written(NamedTuple):
    """What a step wrote.

    Attributes:
        canvas: ``[B, L]``, the new canvas.
        places: ``[B, M]``, all that were written, and others.
        words: ``[B, M]``, the word written at each of these places, or any word if none was.
        kept: bool ``[B, M]``, whether none was.
    """

    canvas: Tensor
    places: Tensor
    words: Tensor
    kept: Tensor


class Walk(Protocol):
    """A reverse step.

    Args:
        canvas: word ids ``[B, L]``, MASK at open places; L may also be a gathered subset of the places.
        logits: ``[B, L, V]``, guided, -inf for words that are not allowed at a place.
        free: bool ``[B, L]``, the places that the walk may write; pinned words are excluded.
        stride: times of the step.
        noise: random numbers of the step.

    Returns:
        The new canvas and what was written on it; after the last stride no free place is masked.
    """

    def __call__(
        self, canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
    ) -> Written: ...


def strides(steps: int) -> list[Stride]:
    """``steps`` equal strides from t = 1 to 0.

    Raises:
        ValueError: ``steps`` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"at least one step is needed, got {steps}")
    return [Stride((steps - done) / steps, (steps - done - 1) / steps, steps - done) for done in range(steps)]


def ancestral(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Written:
    """MDLM's ancestral step (Sahoo et al. 2024, eq. 6) and Dream's ``origin``: open places are written independently.

    q_s = ((t - s) p + s delta_mask) / t.
    """
    return remasking(canvas, logits, free, stride, noise, settings._replace(remask=0.0))


def remasking(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Written:
    """ReMDM's capped step (Wang et al. 2025, eq. 5 and section 4.1): a committed word may be masked again.

    With alpha = 1 - t and sigma = min(remask, (1 - alpha_s) / alpha_t, 1), a committed word is masked with probability
    sigma, and an open place is written with probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t). Sigma = 0 is
    MDLM.
    """
    alpha_t, alpha_s = 1 - stride.t, 1 - stride.s
    sigma = min(settings.remask, stride.s / alpha_t if alpha_t else 1.0, 1.0)
    # At s = 0 the quotient is 1 up to rounding.
    write_probability = (alpha_s - (1 - sigma) * alpha_t) / stride.t if stride.s > 0 else 1.0
    is_open = free & (canvas == settings.mask_id)
    words = _drawn_words(word_weights(logits, settings), noise)
    kept = ~(is_open & (noise.places < write_probability))
    new = torch.where(kept, canvas, words).masked_fill(free & ~is_open & (noise.places < sigma), settings.mask_id)
    places = kept.to(torch.uint8).argsort(dim=1, stable=True)[:, : stride.places]
    return Written(new, places, words.gather(1, places), kept.gather(1, places))


def random_order(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Written:
    """LLaDA's random remasking (Nie et al. 2025, algorithm 4): write a fixed number of random open places per step.

    With one word per step it samples from the model whose likelihood the any-order bound bounds.
    """
    return _commit(canvas, word_weights(logits, settings), noise.places, free, stride, noise, settings)


def low_confidence(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Written:
    """LLaDA's low-confidence remasking (Nie et al. 2025, algorithm 5): keep the words with the highest probability.

    A word is sampled for every open place; its probability is taken before temperature and truncation.
    """
    words = _drawn_words(word_weights(logits, settings), noise)
    scores = (logits.gather(-1, words[..., None])[..., 0] - logits.logsumexp(-1)).exp()
    return _commit(canvas, words, scores, free, stride, noise, settings, settings.threshold)


def confidence(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Written:
    """Dream's ``maskgit_plus`` (Chang et al. 2022; Ye et al. 2025): as ``low_confidence``, but with the probability
    after temperature and truncation."""
    weights = word_weights(logits, settings)
    words = _drawn_words(weights, noise)
    scores = weights.gather(-1, words[..., None])[..., 0] / weights.sum(-1)
    return _commit(canvas, words, scores, free, stride, noise, settings, settings.threshold)


def margin(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Written:
    """Dream's ``topk_margin`` (Kim et al. 2025): largest margin between the two likeliest words first."""
    weights = word_weights(logits, settings)
    first, second = weights.topk(2, -1).values.unbind(-1)
    return _commit(canvas, weights, (first - second) / weights.sum(-1), free, stride, noise, settings)


def entropy(
    canvas: Tensor, logits: Tensor, free: Tensor, stride: Stride, noise: StepNoise, settings: WalkSettings
) -> Written:
    """Dream's ``entropy`` (Ye et al. 2025): lowest entropy of the word's distribution first."""
    log_weights = relative(logits, settings)
    weights = _truncated(log_weights.exp(), settings)
    scores = -entropies(weights, log_weights.clamp_(min=LEAST_LOG))
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

# Walks that draw a word for every open place and keep the likeliest draws, so that the kept words do not follow their
# probabilities.
LIKELIEST_DRAWS = ("confidence", "low_confidence")

# Walks that write each open place at random, rather than a fixed number of places per step.
RANDOM_PLACES = (ancestral, remasking)


def _drawn_words(weights: Tensor, noise: StepNoise) -> Tensor:
    """Words ``[B, L]`` for all places: those of a text that was drawn as a whole, or drawn from ``weights``."""
    return drawn(weights, noise.words) if noise.text is None else noise.text


def _commit(
    canvas: Tensor,
    words: Tensor,
    scores: Tensor,
    free: Tensor,
    stride: Stride,
    noise: StepNoise,
    settings: WalkSettings,
    sure: float | None = None,
) -> Written:
    """Write words at the open places with the highest scores: ceil(m / strides left) of m open places.

    Over N strides that is floor(m / N) each, plus one in the first m mod N (LLaDA, section 2.4).

    Args:
        words: ``[B, L]``, the words to write; or weights ``[B, L, V]``, to sample words only at the chosen places, if
            no text was drawn as a whole.
        scores: ``[B, L]``.
        sure: the score from which a word is written in any case.
    """
    is_open = free & (canvas == settings.mask_id)
    is_closed = ~is_open
    most = -(-canvas.shape[1] // stride.left) if stride.most is None else stride.most
    ranks = scores.masked_fill(is_closed, -torch.inf)
    # Ties go to the leftmost place, whatever the width of the batch.
    if most == 1 and sure is None:
        places = ranks.argmax(1, keepdim=True)
        kept = is_closed.gather(1, places)
    else:
        ranked = ranks.argsort(dim=1, descending=True, stable=True)
        places = ranked[:, : most if sure is None else stride.places]
        write_counts = (is_open.sum(1) + (stride.left - 1)) // stride.left
        if sure is not None:
            write_counts = torch.maximum(write_counts, (is_open & (scores >= sure)).sum(1))
        kept = torch.arange(places.shape[1], device=canvas.device) >= write_counts[:, None]
    words = words if noise.text is None else noise.text
    if words.dim() == 3:
        rows = torch.arange(len(canvas), device=canvas.device)[:, None]
        new = drawn(words[rows, places], noise.words.gather(1, places))
    else:
        new = words.gather(1, places)
    written = torch.where(kept, canvas.gather(1, places), new)
    return Written(canvas.scatter(1, places, written), places, new, kept)


def word_weights(logits: Tensor, settings: WalkSettings) -> Tensor:
    """Unnormalised probabilities ``[..., V]`` after temperature and ``min_p``; the likeliest word has weight 1."""
    return _truncated(relative(logits, settings).exp_(), settings)


def relative(logits: Tensor, settings: WalkSettings) -> Tensor:
    """Log weights ``[..., V]`` before truncation: at most 0, -inf for words that are not allowed."""
    log_weights = logits - logits.amax(-1, keepdim=True)
    if settings.temperature == 0:
        return log_weights.masked_fill_(log_weights < 0, -torch.inf)
    return log_weights if settings.temperature == 1 else log_weights.div_(settings.temperature)


def is_unlikely(logits: Tensor, settings: WalkSettings) -> Tensor:
    """Whether ``min_p`` excludes a word, or it is not allowed: ``[..., V]``."""
    least = math.log(_least_weight(settings)) if settings.min_p else -math.inf
    return logits <= logits.amax(-1, keepdim=True) + settings.temperature * least


def _least_weight(settings: WalkSettings) -> float:
    """The weight up to which ``min_p`` excludes a word; the factor keeps the likeliest word despite rounding."""
    return settings.min_p * (1 - 1e-6)


def _truncated(weights: Tensor, settings: WalkSettings) -> Tensor:
    """Set ``weights [..., V]`` to 0 for the words that ``min_p`` excludes, in place."""
    # A single pass.
    return torch.threshold_(weights, _least_weight(settings), 0.0) if settings.min_p > 0 else weights


def entropies(weights: Tensor, logs: Tensor) -> Tensor:
    """Entropies ``[...]``, in nats, of the distributions with unnormalised ``weights [..., V]``.

    Args:
        logs: the log weights, finite also where the weight is 0; overwritten.
    """
    total = weights.sum(-1)
    return total.log() - logs.mul_(weights).sum(-1) / total


def drawn(weights: Tensor, uniform: Tensor) -> Tensor:
    """Sample ids ``[...]`` by inverse transform from ``weights [..., V]``, with ``uniform`` numbers ``[...]``.

    A word of weight 0 is never drawn. With a large vocabulary this is much faster than ``torch.multinomial``. If
    weights are NaN, the result is some valid id: NaNs are detected later, once a GPU is done.
    """
    cumulative = weights.cumsum(-1)
    total = cumulative[..., -1:]
    # Rounding may give the total itself, which no cumulative sum exceeds.
    threshold = torch.minimum(uniform[..., None].to(cumulative) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold, right=True)[..., 0].clamp_(max=weights.shape[-1] - 1)


def log_probabilities(written: Written, logits: Tensor) -> Tensor:
    """log p ``[B, M]`` under ``logits [B, L, V]`` of the words that a step wrote, 0 for those that it did not.

    Summed over a walk, it says how unlikely the model found the text while writing it. It costs nothing, and ranks
    candidates as well as scoring the finished texts.
    """
    log_probs = _at(logits, written).log_softmax(-1)
    return log_probs.gather(-1, written.words[..., None])[..., 0].masked_fill(written.kept, 0.0)


def log_ratios(written: Written, unguided: Tensor, guided: Tensor, settings: WalkSettings) -> Tensor:
    """log p - log q ``[B]`` of the words that a step wrote: p is the unguided model, q the walk that drew them.

    Both are at the temperature of the walk; only q is truncated. Which places are written depends on q alone and does
    not enter: the model may write in any order.

    Args:
        unguided, guided: logits ``[B, L, V]``.
    """
    words = written.words[..., None]
    log_p = (_at(unguided, written) / settings.temperature).log_softmax(-1).gather(-1, words)
    drawn_from = _at(guided, written)
    drawn_from = drawn_from.masked_fill(is_unlikely(drawn_from, settings), -torch.inf)
    log_q = (drawn_from / settings.temperature).log_softmax(-1).gather(-1, words)
    return (log_p - log_q)[..., 0].masked_fill(written.kept, 0.0).sum(1)


def _at(logits: Tensor, written: Written) -> Tensor:
    """``logits [B, L, V]`` at the places of a step: ``[B, M, V]``."""
    return logits[torch.arange(len(logits), device=logits.device)[:, None], written.places]
