"""Mean fluency of texts: nats per token under a scorer over the model's words, or nats per word under any causal
language model, since figures per token of its own would not be comparable with those of other models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dlmctl.annotators.causal import CausalLM
from dlmctl.annotators.reader import load_reader, text_scorer
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.errors import DataError
from dlmctl.metrics.lm_score import corpus_nats

PER_TOKEN, PER_WORD = "nats per token", "nats per word"

Texts = Sequence[Sequence[str]]


class Nats(NamedTuple):
    """A measure of fluency: maps texts, as words, to their mean nats per ``unit``."""

    unit: str
    measure: Callable[[Texts], float]

    def __call__(self, texts: Texts) -> float:
        """Mean nats of texts; lower is more fluent.

        Raises:
            DataError: there are none, or one is too long for the scorer.
        """
        return self.measure(texts)


def nats_of(pretrained: Pretrained, scorer: str | Path | None = None) -> Nats | None:
    """The measure of fluency for texts of a model.

    Args:
        scorer: what ``load_reader`` accepts; by default what scores the model's texts, and the result is None if
            nothing does.

    Raises:
        ModelError: there is no such scorer, or it cannot be read.
    """
    reader, natural = text_scorer(pretrained) if scorer is None else load_reader(scorer), pretrained.tokenizer.text
    if reader is None:
        return None
    if not isinstance(reader, CausalLM):
        return Nats(PER_TOKEN, lambda texts: corpus_nats(reader, texts))
    return Nats(PER_WORD, lambda texts: _per_word(reader, texts, [natural(words) for words in texts]))


def _per_word(language_model: CausalLM, texts: Texts, natural: Sequence[str]) -> float:
    """Nats of all tokens of all texts, divided by the number of their words."""
    if not any(texts):
        raise DataError("there are no words to score.")
    return sum(map(sum, language_model.token_nats(natural))) / sum(map(len, texts))
