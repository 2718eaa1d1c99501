"""The layout of texts in tokens, for controls about words: how many tokens the words may take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlmctl.control.automata import (
    ExactTokens,
    Requirement,
    lengths,
    log_probability_by_length,
    required_length,
    stacked,
)
from dlmctl.control.base import Control
from dlmctl.control.combined import parts_of
from dlmctl.control.prepared import Part
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import SPECIAL, Layout, positions_for
from dlmctl.diffusion.masked_base import MaskedModel
from dlmctl.diffusion.noise import LAYOUT
from dlmctl.errors import UnsatisfiableError
from dlmctl.text.tokenizer import Tokenizer

# Length of the masked text from which token frequencies are estimated.
MARGINAL_TOKENS = 32


def word_count_parts(control: Control[Any], batch: BatchContext[Any], parts: Sequence[Part]) -> list[Part]:
    """A part that holds the texts of a batch to the word counts of those controls that do not do so themselves."""
    pairs = zip(parts_of(control), parts, strict=True)
    inexact = [each for each, part in pairs if not isinstance(part.prepared, ExactTokens)]
    rows: list[list[Requirement]] = []
    for draw in batch.draws:
        by_control = [(each.name, each.range_of(draw.sample)) for each in inexact]
        named = [(name, count_range) for name, count_range in by_control if count_range is not None]
        ranges = [count_range for _, count_range in named]
        low, high = max((fewest for fewest, _ in ranges), default=0), min((most for _, most in ranges), default=0)
        if low > high:
            what = f"the controls contradict each other: one needs at least {low} words, another at most {high}."
            raise UnsatisfiableError(what, where=f"sample {draw.sample}")
        # More words than the model has positions are no bound, and none keeps the automaton small.
        most = high if high < batch.model.config.length else None
        names = " and ".join(dict.fromkeys(name for name, _ in named))
        rows.append([required_length(low, most)._replace(name=names)] if ranges else [])
    return [Part("length", 1.0, ExactTokens(batch, rows))] if any(rows) else []


def layout_without_count(batch: BatchContext[Any], parts: Sequence[Part]) -> Layout:
    """The layout of one text that ``parts`` restrict to a language, and whose number of tokens the model chooses.

    Raises:
        UnsatisfiableError: the language is empty.
    """
    for part in parts:
        if isinstance(part.prepared, ExactTokens):
            _ = part.prepared.languages  # built when first asked for
    return batch.layouts[0]


def lay_out_tokens(batch: BatchContext[Any], parts: Sequence[Part], most: int | None = None) -> Layout:
    """The layout of one text that ``parts`` restrict to a language.

    A number of tokens n is drawn by p(n) p(language given n): p(n) is that of the training text, or uniform if that is
    unknown; p(language given n) treats tokens as independent, each with its marginal probability under the model. So 14
    words get about as many tokens as 14 words take. Only requirements that weigh lengths make up this probability.

    Args:
        most: the most tokens; as many as the model holds if not given.

    Raises:
        UnsatisfiableError: the language has no text within that number of tokens.
    """
    (draw,) = batch.draws
    config = batch.model.config
    max_tokens = config.length - SPECIAL if most is None else most
    exact = [part.prepared for part in parts if isinstance(part.prepared, ExactTokens)]
    possible = torch.arange(max_tokens + 1) > 0  # an empty text is none
    log_likelihoods = torch.zeros(max_tokens + 1, dtype=torch.float64)
    for language in (language for each in exact for language in each.languages):
        possible &= torch.from_numpy(lengths(language, max_tokens))
    if isinstance(batch.model, MaskedModel):
        marginals = _marginals(batch.model, batch.vocabulary).cpu().double()
        for language in (language for each in exact for language in each.weighing_lengths()):
            log_likelihoods += log_probability_by_length(marginals, stacked([language]), max_tokens)
    if not possible.any():
        limit = "the most that the model holds" if most is None else "as sampler.new_tokens allows"
        remedy = None if most is None else "Set sampler.new_tokens higher."
        what = f"no text of up to {max_tokens} tokens, {limit}, satisfies it."
        names = [part.name for part in parts if isinstance(part.prepared, ExactTokens)]
        raise UnsatisfiableError(what, where=" and ".join(names), remedy=remedy)
    prior = torch.zeros(max_tokens + 1, dtype=torch.float64)
    counts = torch.tensor(list(config.sentence_lengths)[: max_tokens + 1], dtype=torch.float64)
    prior[: len(counts)] = counts
    prior = prior if (prior * possible).sum() > 0 else torch.ones_like(prior)
    scores = (prior.log() + log_likelihoods).masked_fill(~possible, -torch.inf)
    scores = scores if torch.isfinite(scores).any() else torch.zeros_like(scores).masked_fill(~possible, -torch.inf)
    count = int(torch.multinomial(scores.softmax(0), 1, generator=draw.generator(LAYOUT)))
    return Layout(positions_for(count, config.length), count)


@torch.no_grad()
def _marginals(model: MaskedModel, vocabulary: Tokenizer) -> Tensor:
    """Log-probability ``[V]`` of each token, as the model predicts for a fully masked text."""
    if model.marginals is None:
        count = min(MARGINAL_TOKENS, model.config.length - SPECIAL)
        canvas = [vocabulary.start_id, *[model.mask_id] * count, vocabulary.end_id]
        logits = model.logits(torch.tensor([canvas], device=model.embeddings.device))[0, 1:-1].float()
        model.marginals = mean_log_probs(logits)
    return model.marginals


def mean_log_probs(logits: Tensor) -> Tensor:
    """The log of the mean probabilities ``[V]`` of ``logits [N, V]``."""
    return logits.log_softmax(-1).logsumexp(0) - torch.tensor(float(len(logits))).log()
