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
    readable = list(range(len(texts)))
    if not isinstance(reader, CausalLM):
        readable = [index for index in readable if len(texts[index]) < reader[0].config.n_positions]
    fluencies: list[Fluency | None] = [None] * len(texts)
    for batch in [[index] for index in readable] if alone else [readable]:
        spelled = [natural[index] for index in batch] if isinstance(reader, CausalLM) else ()
        for index, nats in zip(batch, nats_of_words(reader, [texts[index] for index in batch], spelled), strict=True):
            if not nats:
                continue
            worst = max(range(len(nats)), key=nats.__getitem__)
            word = texts[index][worst] if worst < len(texts[index]) else END
            count = max(1, len(texts[index]) - 1) if isinstance(reader, CausalLM) else len(nats)
            fluencies[index] = Fluency(sum(nats) / count, word, nats[worst])
    return fluencies


def nats_of_words(reader: Reader, texts: Sequence[Sequence[str]], natural: Sequence[str] = ()) -> list[list[float]]:
    """The nats of each word of each text, and of END after them; 0 where a causal language model has none, or none that
    counts (``fluency_of``), and no list for a text that it cannot read to its end.

    Args:
        texts: as words; natural: as for ``fluency_of``.

    Raises:
        DataError: a text is too long for a scorer.
    """
    if not isinstance(reader, CausalLM):
        return token_nats(*reader, texts)
    rows = surprisals(reader, texts, natural)
    counted = [row if len(row) == 1 else [0.0, *row[1:]] for row in rows]  # the only word counts
    return [[] if not row or row[-1] is None else [*(nats or 0.0 for nats in row), 0.0] for row in counted]


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
