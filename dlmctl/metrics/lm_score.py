"""lm-score: nats per token of a text under an autoregressive model of the same corpus (lower is better).

The paper's fluency measure (Li et al. 2022, section 6), by the scorer of ``annotators.scorer``.
"""

from __future__ import annotations

from collections.abc import Sequence

from dlmctl.annotators.scorer import Judge, token_nats
from dlmctl.errors import DataError
from dlmctl.models.gpt2 import GPT2
from dlmctl.text.tokenizer import Tokenizer


def lm_score(scorer: GPT2, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[float]:
    """Nats per token of each sentence, given as words. Raises as ``token_nats``."""
    return [sum(nats) / len(nats) for nats in token_nats(scorer, tokenizer, sentences)]


def mean_nats(scores: Sequence[float], sentences: Sequence[Sequence[str]]) -> float:
    """Nats per token of a corpus, total nats over total tokens, from each sentence's ``lm_score``.

    END is a token, so a sentence of n words has weight n + 1; a plain mean of the scores would overweight short ones.

    Raises:
        DataError: there are no sentences.
    """
    if not sentences:
        raise DataError("there are no sentences to score.")
    tokens = [len(words) + 1 for words in sentences]
    return sum(score * count for score, count in zip(scores, tokens, strict=True)) / sum(tokens)


def corpus_nats(judge: Judge, sentences: Sequence[Sequence[str]]) -> float:
    """``mean_nats`` of sentences under a scorer."""
    return mean_nats(lm_score(*judge, sentences), sentences)
