"""Which of several texts to keep, and whether it is good enough: ``until``, ``rank_by`` and ``candidates``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dlmctl.control.check import Check, mean_score
from dlmctl.generation.scoring import load_scoring
from dlmctl.metrics.fluency import Fluency, flaws
from dlmctl.metrics.sentence_bleu import sentence_bleu
from dlmctl.text.word_counts import WordCounts, load_counts

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained
    from dlmctl.recipe.settings import Criterion, Quota, Until

Checks = Mapping[str, Check]


# The criteria that the scorer beside the model decides, and what has learned from readers.
BY_SCORER = {"acceptability", "fluency", "lm_score", "worst_word"}
# What nats a word of a second language model add in ``fluency``. Of a sound text and one that is not, for the same
# target, it prefers the sound one in 86 of 100 with SmolLM2-135M, in 83 without.
SECOND_SHARE = 0.4


def ranks_by_scorer(rank_by: Sequence[Criterion], candidates: int, until: Until | None, quota: Quota | None) -> bool:
    """Whether the scorer chooses among the draws of a sample; ``until`` is None for a single round."""
    several = candidates > 1 or quota is not None or (until is not None and until.max_rounds > 1)
    return several and bool(BY_SCORER & set(rank_by))


def asks_reader(rank_by: Sequence[Criterion], candidates: int, until: Until | None, quota: Quota | None) -> bool:
    """Whether a choice among draws depends on their acceptability; arguments as of ``ranks_by_scorer``."""
    bounded = until is not None and until.acceptability is not None
    return bounded or ("acceptability" in rank_by and ranks_by_scorer(rank_by, candidates, until, quota))


def satisfied(checks: Checks, until: Until, fluency: Fluency | None = None) -> bool:
    """Whether a text is good enough to stop drawing. One without a fluency is within no bound of it.

    Under a least mean score a passed check counts 1, as in ``utilities``: how sure its judge is keeps no text open.
    """
    for most, nats in zip((until.lm_score, until.worst_word), _nats_of(fluency), strict=True):
        if most is not None and nats > most:
            return False
    if until.acceptability is not None and _acceptability(fluency) < until.acceptability:
        return False
    passes = [check.passed for check in checks.values()]
    if until.satisfied == "all":
        return all(passes)
    if until.satisfied == "any":
        return any(passes) or not passes
    return mean_score(_passed_in_full(checks)) >= until.satisfied


def utilities(
    criteria: Sequence[Criterion],
    pretrained: Pretrained,
    texts: Sequence[Sequence[str]],
    checks: Sequence[Checks],
    walk: Sequence[float | None] = (),
    fluency: Sequence[Fluency | None] = (),
) -> list[tuple[float, ...]]:
    """For each text one number per criterion, higher is better, to be compared in order.

    ``satisfaction`` counts a text's passed checks, then the mean score, a passed check being 1: how sure a judge is of
    what it passes decides only between texts that are equal in all criteria. ``lm_score`` is the negative nats per
    token under the scorer beside the model, ``worst_word`` those of the token that it finds least likely: a slip, such
    as a doubled or a missing word, costs its place many nats and the mean of the text few. ``fluency`` weighs both:
    of a text with a slip and one of many unlikely words either may be the worse; rarer words that come again in a
    text count against it, where the model's folder says how often words occur. ``acceptability`` is how likely a
    reader takes it for a sound sentence, of models that have learned it. ``mbr`` is the mean BLEU
    against the other texts (minimum Bayes risk decoding, Kumar and Byrne 2004). Of texts that are equal so far the one
    is better whose words the walk found likelier when it wrote them, where that is known (``walk``, in nats a text).
    ``fluency`` is that of the texts where it was found before; a text that the scorer cannot read ranks last.

    Raises:
        ModelError: a criterion of the scorer is asked for and the model has none, or acceptability and it has learned
            none.
    """
    if BY_SCORER & set(criteria) and not any(fluency):
        fluency = load_scoring(pretrained, reads="acceptability" in criteria).of(texts)
    columns: list[Sequence[float]] = []
    for criterion in criteria:
        if criterion == "satisfaction":
            columns.append([sum(check.passed for check in found.values()) for found in checks])
            columns.append([mean_score(_passed_in_full(found)) for found in checks])
        elif criterion == "fluency":
            counts = _counts(pretrained.folder)
            columns.append([-_weighed(one, words, counts) for one, words in zip(fluency, texts, strict=True)])
        elif criterion == "acceptability":
            columns.append([_acceptability(one) for one in fluency])
        elif criterion == "lm_score":
            columns.append([-_nats_of(one)[0] for one in fluency])
        elif criterion == "worst_word":
            columns.append([-_nats_of(one)[1] for one in fluency])
        else:
            columns.append(mean_bleu(texts))
    if "satisfaction" in criteria:
        columns.append([mean_score(found) for found in checks])
    nats_of_walk = [nats for nats in walk if nats is not None]
    if len(nats_of_walk) == len(texts):
        columns.append([-nats for nats in nats_of_walk])
    return list(zip(*columns, strict=True))


@cache
def _counts(folder: Path) -> WordCounts | None:
    return load_counts(folder)


def _weighed(fluency: Fluency | None, words: Sequence[str], counts: WordCounts | None) -> float:
    """The nats that stand against a text in ``fluency``."""
    second = fluency.second_nats if fluency is not None else None
    return flaws(fluency, words, counts) + SECOND_SHARE * (second or 0.0)


def _acceptability(fluency: Fluency | None) -> float:
    """The probability that a reader accepts a text; of one that cannot be judged less than any."""
    found = None if fluency is None else fluency.acceptability
    return -1.0 if found is None else found


def _passed_in_full(checks: Checks) -> Checks:
    return {name: check._replace(score=1.0) if check.passed else check for name, check in checks.items()}


def mean_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """The mean BLEU-4 (smoothed: Lin and Och 2004) of each text against every other one; 0 where it is alone."""
    return [
        sum(sentence_bleu(text, [other], smoothing=2) for j, other in enumerate(texts) if j != i)
        / max(1, len(texts) - 1)
        for i, text in enumerate(texts)
    ]


def _nats_of(fluency: Fluency | None) -> tuple[float, float]:
    """Nats per token, and those of the worst word."""
    return (math.inf, math.inf) if fluency is None else (fluency.lm_score, fluency.worst_nats)
