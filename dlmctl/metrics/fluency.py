"""Fluency of single texts: nats per token under a scorer, and the word that it finds least likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dlmctl.annotators.causal import BATCH, CausalLM
from dlmctl.annotators.reader import Reader
from dlmctl.annotators.scorer import token_nats
from dlmctl.annotators.surprisal import surprisals
from dlmctl.text.tokenizer import END
from dlmctl.text.word_counts import MILLION, WordCounts

# Weight of the worst word's nats in ``flaws``, added to the mean: in a text of ten words it counts about four times as
# much as another word. Chosen on 820 texts that were read: of a sound and an unsound text for the same target, the
# sound one has fewer flaws in 80 of 100 pairs; by the mean alone in 75, by the worst word in 72.
WORST_SHARE = 0.3
# Cost of a repeated word, in nats per token, if fewer than one word in a thousand is this word. A language model finds
# a repeated word likely, but a reader refused 32 of 40 texts with one, and every fourth of the others. With this cost
# the sound text has fewer flaws in 83 of 100 pairs.
REPEATED, RARE = 1.0, MILLION / 1000
# Weights of the ``figures_of`` a text.
SHARES = (1.0, WORST_SHARE, REPEATED)


WordNats = Sequence[float | None]
"""The nats of each word of a text, and of END after them; None for what does not count."""


class Fluency(NamedTuple):
    """The scores of a text.

    Attributes:
        lm_score: nats per token, see ``lm_score``.
        worst_word: the word with the most nats, END if the text stops too early or too late.
        worst_nats: its nats. A doubled or a missing word costs many nats in its place but changes the mean little.
        second_nats: nats per word under a second language model, if one is used.
        acceptability: the probability that a reader accepts the text, if the model has learned it.
    """

    lm_score: float
    worst_word: str
    worst_nats: float
    second_nats: float | None = None
    acceptability: float | None = None


def fluency_of(
    reader: Reader, texts: Sequence[Sequence[str]], natural: Sequence[str] = (), *, alone: bool = False
) -> list[Fluency | None]:
    """The fluency of each text; None for texts that are longer than the scorer can read.

    A causal language model of Hugging Face gives nats per word, without the first of several: like that of a first
    token (see ``with_second``), its likelihood says more about the model's training text. It does not read END.

    Args:
        texts: as words; natural: in natural spelling, which a causal language model reads.
        alone: score each text by itself, so that its last digits do not depend on the other texts.
    """
    rows: list[WordNats] = []
    for part in [slice(at, at + 1) for at in range(len(texts))] if alone else [slice(None)]:
        rows += nats_of_words(reader, texts[part], natural[part])
    return [_fluency(words, nats) if nats else None for words, nats in zip(texts, rows, strict=True)]


def _fluency(words: Sequence[str], nats: WordNats) -> Fluency:
    counted = [value for value in nats if value is not None]
    worst = max(range(len(nats)), key=lambda place: nats[place] or 0.0)
    word = words[worst] if worst < len(words) else END
    return Fluency(sum(counted) / len(counted), word, nats[worst] or 0.0)


def nats_of_words(reader: Reader, texts: Sequence[Sequence[str]], natural: Sequence[str] = ()) -> list[WordNats]:
    """The nats of each word of each text, and of END after them; empty for a text that the reader cannot read to its
    end.

    Args:
        texts: as words; natural: as for ``fluency_of``.

    Raises:
        DataError: a text of few enough words has too many pieces of words for a scorer.
    """
    if isinstance(reader, CausalLM):
        return [_counted(row) for row in surprisals(reader, texts, natural)]
    is_readable = [len(words) < reader[0].config.n_positions for words in texts]
    rows = iter(token_nats(*reader, [words for words, readable in zip(texts, is_readable, strict=True) if readable]))
    return [next(rows) if readable else [] for readable in is_readable]


def _counted(nats: Sequence[float | None]) -> WordNats:
    """The surprisals of a text's words as ``nats_of_words``, without END. Of several words the first does not count,
    and one that the model has no token for costs nothing."""
    if not nats or nats[-1] is None:
        return []
    first = nats[0] if len(nats) == 1 else None
    return [first, *(value or 0.0 for value in nats[1:]), None]


def with_second(
    fluencies: Sequence[Fluency | None],
    language_model: CausalLM,
    texts: Sequence[Sequence[str]],
    natural: Sequence[str],
    *,
    alone: bool = False,
) -> list[Fluency | None]:
    """Add ``second_nats`` to fluencies: the nats of all tokens except the first, divided by the words plus the end.

    The likelihood of a first token says more about the model's training text than about the text, and would penalise
    short texts.

    Args:
        texts: as words; natural: in natural spelling, which the model reads.
        alone: as for ``fluency_of``.
    """
    nats = language_model.token_nats(natural, 1 if alone else BATCH)
    return [
        fluency and fluency._replace(second_nats=sum(text_nats[1:]) / (len(words) + 1))
        for fluency, text_nats, words in zip(fluencies, nats, texts, strict=True)
    ]


def flaws(fluency: Fluency | None, words: Sequence[str], word_counts: WordCounts | None) -> float:
    """The flaws of a text, in nats per token: its ``lm_score``, a share of its worst word's nats, and ``REPEATED`` for
    each repeated rare word; infinite without a fluency.

    Args:
        word_counts: word frequencies; without them repeated words cost nothing.
    """
    if fluency is None:
        return math.inf
    return sum(share * figure for share, figure in zip(SHARES, figures_of(fluency, words, word_counts), strict=True))


def figures_of(fluency: Fluency, words: Sequence[str], word_counts: WordCounts | None) -> tuple[float, float, float]:
    """The figures that ``flaws`` weighs: mean nats, the worst word's nats, and the number of repeated rare words."""
    return (
        fluency.lm_score,
        fluency.worst_nats,
        0.0 if word_counts is None else float(repeated_rare_words(words, word_counts)),
    )


def repeated_rare_words(words: Sequence[str], word_counts: WordCounts) -> int:
    """The number of words that occur earlier in the text, in any case, and are rare (``RARE``)."""
    seen, repeated = set[str](), 0
    for word in words:
        if word[0].isalpha() and word_counts.per_million(word) < RARE:
            repeated += word.casefold() in seen
            seen.add(word.casefold())
    return repeated
