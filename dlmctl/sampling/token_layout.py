"""The layout of texts in tokens, for controls that speak of words: how many tokens the words may take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dlmctl.control.automata import (
    Automaton,
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
from dlmctl.errors import Unmet
from dlmctl.text.tokenizer import Tokenizer

# Tokens of the text that shows which ones are frequent.
SHOWN = 32
_MARGINALS: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()


def counted(control: Control[Any], batch: BatchContext[Any], parts: Sequence[Part]) -> list[Part]:
    """What holds the texts of a batch to the numbers of words of controls that do not hold them to it themselves."""
    free = [
        one for one, part in zip(parts_of(control), parts, strict=True) if not isinstance(part.prepared, ExactTokens)
    ]
    rows: list[list[Requirement]] = []
    for draw in batch.draws:
        ranges = [found for one in free if (found := one.range_of(draw.sample)) is not None]
        low, high = max((one[0] for one in ranges), default=0), min((one[1] for one in ranges), default=0)
        if low > high:
            what = f"the controls contradict each other: one needs at least {low} words, another at most {high}."
            raise Unmet(what, where=f"sample {draw.sample}")
        # No token makes more words than it has characters; a bound beyond that is none.
        rows.append([required_length(low, min(high, batch.model.config.length))] if ranges else [])
    return [Part("length", 1.0, ExactTokens(batch, rows))] if any(rows) else []


def lay_out_tokens(batch: BatchContext[Any], parts: Sequence[Part]) -> Layout:
    """The layout of one text whose ``parts`` hold it to a language.

    A number of tokens n is drawn by p(n) p(language given n): p(n) as in the training text, or any if nothing is known
    of it, and the other as if tokens were independent, each drawn by how often the model writes it. So 14 words are
    given about as many tokens as 14 words take.

    Raises:
        Unmet: no number of tokens that the model holds serves the language.
    """
    (draw,) = batch.draws
    config, most = batch.model.config, batch.model.config.length - SPECIAL
    held = [part for part in parts if isinstance(part.prepared, ExactTokens)]
    languages = [automaton for part in held for automaton in _languages(part)]
    possible = torch.ones(most + 1, dtype=torch.bool)
    weights = torch.zeros(most + 1, dtype=torch.float64)
    for language in languages:
        possible &= torch.from_numpy(lengths(language, most))
        if isinstance(batch.model, MaskedModel):
            common = _marginals(batch.model, batch.vocabulary).to(torch.float64).cpu()
            weights += log_probability_by_length(common, stacked([language]), most)
    if not possible.any():
        what = f"no text of up to {most} tokens, the most that the model holds, satisfies it."
        raise Unmet(what, where=" and ".join(part.name for part in held))
    seen = torch.zeros(most + 1, dtype=torch.float64)
    counts = torch.tensor(list(config.sentence_lengths)[: most + 1], dtype=torch.float64)
    seen[: len(counts)] = counts
    seen = seen if (seen * possible).sum() > 0 else torch.ones_like(seen)
    scores = (seen.log() + weights).masked_fill(~possible, -torch.inf)
    scores = scores if torch.isfinite(scores).any() else torch.zeros_like(scores).masked_fill(~possible, -torch.inf)
    count = int(torch.multinomial(scores.softmax(0), 1, generator=draw.generator(LAYOUT)))
    return Layout(positions_for(count, config.length), count)


def _languages(part: Part) -> list[Automaton]:
    assert isinstance(part.prepared, ExactTokens)
    return part.prepared.languages


@torch.no_grad()
def _marginals(model: MaskedModel, vocabulary: Tokenizer) -> Tensor:
    """Log-probability ``[V]`` of each token, by what the model expects of a text of which nothing is known."""
    if model not in _MARGINALS:
        count = min(SHOWN, model.config.length - SPECIAL)
        canvas = [vocabulary.start_id, *[model.mask_id] * count, vocabulary.end_id]
        logits = model.logits(torch.tensor([canvas], device=model.embeddings.device))[0, 1:-1].float()
        _MARGINALS[model] = logits.log_softmax(-1).logsumexp(0) - torch.tensor(float(count)).log()
    return _MARGINALS[model]
