"""How fluent single texts are: nats per token under a scorer, and the one word that it finds least likely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dlmctl.metrics.lm_score import Judge, token_nats
from dlmctl.metrics.nats import BATCH, CausalLM
from dlmctl.text.tokenizer import END


class Fluency(NamedTuple):
    """What a scorer says of a text.

    Attributes:
        lm_score: nats per token, see ``lm_score``.
        worst_word: the word with the most nats, END where the text stops too early or too late.
        worst_nats: its nats. A doubled or a missing word costs its place many, and the mean of the text few.
        second_nats: nats a word under another language model, where one is asked.
    """

    lm_score: float
    worst_word: str
    worst_nats: float
    second_nats: float | None = None


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
