"""How fluent single texts are: nats per token under a scorer, and the one word that it finds least likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dlmctl.metrics.lm_score import Judge, token_nats
from dlmctl.metrics.nats import BATCH, CausalLM
from dlmctl.text.tokenizer import END
from dlmctl.text.word_counts import MILLION, WordCounts

# What the worst word of a text adds to its mean in its ``flaws``: of ten words it counts about four times as much
# as another. Chosen on 820 texts that were read: of a sound text and one that is not, for the same target, the sound
# one has fewer in 80 of 100, by the mean alone in 75, by the worst word in 72.
WORST_SHARE = 0.3
# What a word that stands in the text before costs, in nats a token, if fewer than one word in a thousand is it. A
# language model finds a word that comes again likely; a reader refused 32 of 40 such texts, and every fourth of the
# others. With it 83 of 100.
REPEATED, RARE = 1.0, MILLION / 1000
# What each of the ``figures_of`` a text costs.
SHARES = (1.0, WORST_SHARE, REPEATED)


class Fluency(NamedTuple):
    """What a scorer says of a text.

    Attributes:
        lm_score: nats per token, see ``lm_score``.
        worst_word: the word with the most nats, END where the text stops too early or too late.
        worst_nats: its nats. A doubled or a missing word costs its place many, and the mean of the text few.
        second_nats: nats a word under another language model, where one is asked.
        acceptability: the probability that a reader accepts the text, where the model has learned it.
    """

    lm_score: float
    worst_word: str
    worst_nats: float
    second_nats: float | None = None
    acceptability: float | None = None


def fluency_of(judge: Judge, texts: Sequence[Sequence[str]], *, alone: bool = False) -> list[Fluency | None]:
    """The fluency of each text, given as words; None of those that are longer than the scorer can read.

    Args:
        alone: score each text by itself, so that what else is scored does not change its last digits.
    """
    scorer, tokenizer = judge
    readable = [at for at, words in enumerate(texts) if len(words) < scorer.config.n_positions]
    found: list[Fluency | None] = [None] * len(texts)
    for some in [[at] for at in readable] if alone else [readable]:
        for at, nats in zip(some, token_nats(scorer, tokenizer, [texts[at] for at in some]), strict=True):
            worst = max(range(len(nats)), key=nats.__getitem__)
            word = texts[at][worst] if worst < len(texts[at]) else END
            found[at] = Fluency(sum(nats) / len(nats), word, nats[worst])
    return found


def with_second(
    found: Sequence[Fluency | None],
    second: CausalLM,
    texts: Sequence[Sequence[str]],
    natural: Sequence[str],
    *,
    alone: bool = False,
) -> list[Fluency | None]:
    """The fluency of texts with their ``second_nats``: those of all tokens but the first, over the words and the end.

    How likely a first token is says more of what the model mostly reads than of a text, and would be held against
    short ones.

    Args:
        texts: as words; natural: as people write them, which is what the model reads.
        alone: as of ``fluency_of``.
    """
    nats = second.token_nats(natural, 1 if alone else BATCH)
    return [
        one and one._replace(second_nats=sum(some[1:]) / (len(words) + 1))
        for one, some, words in zip(found, nats, texts, strict=True)
    ]


def flaws(fluency: Fluency | None, words: Sequence[str], counts: WordCounts | None) -> float:
    """What stands against a text, in nats a token: those of ``lm_score``, a part of the worst word's, and one for each
    rare word that comes again; infinite without a fluency.

    Args:
        counts: how often words occur; without them no word is held against a text for coming again.
    """
    if fluency is None:
        return math.inf
    return sum(share * figure for share, figure in zip(SHARES, figures_of(fluency, words, counts), strict=True))


def figures_of(fluency: Fluency, words: Sequence[str], counts: WordCounts | None) -> tuple[float, float, float]:
    """What ``flaws`` weighs: the mean nats of a text, those of its worst word, and how many rare words come again."""
    return fluency.lm_score, fluency.worst_nats, 0.0 if counts is None else float(repeats(words, counts))


def repeats(words: Sequence[str], counts: WordCounts) -> int:
    """How many words stand in the text before, whatever their case, and are rare (``RARE``)."""
    seen, found = set[str](), 0
    for word in words:
        if word[0].isalpha() and counts.per_million(word) < RARE:
            found += word.casefold() in seen
            seen.add(word.casefold())
    return found
