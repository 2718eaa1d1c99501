"""Which of several texts to keep, and whether it is good enough: ``until``, ``rank_by`` and ``candidates``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
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


# The criteria that need the model's scorer or its acceptability judge.
BY_SCORER = {"acceptability", "fluency", "lm_score", "worst_word"}
# Weight of a second language model's nats per word in ``fluency``. Given a sound and an unsound text for the same
# target, ``fluency`` prefers the sound one in 86 of 100 pairs with SmolLM2-135M, in 83 without.
SECOND_SHARE = 0.4


def ranks_by_scorer(rank_by: Sequence[Criterion], candidates: int, until: Until | None, quota: Quota | None) -> bool:
    """Whether the scorer chooses among the draws of a sample; ``until`` is None for a single round."""
    several = candidates > 1 or quota is not None or (until is not None and until.max_rounds > 1)
    return several and bool(BY_SCORER & set(rank_by))


def needs_acceptability(
    rank_by: Sequence[Criterion], candidates: int, until: Until | None, quota: Quota | None
) -> bool:
    """Whether the choice among draws depends on their acceptability; arguments as for ``ranks_by_scorer``."""
    has_bound = until is not None and until.acceptability is not None
    return has_bound or ("acceptability" in rank_by and ranks_by_scorer(rank_by, candidates, until, quota))


def satisfied(checks: Checks, until: Until, fluency: Fluency | None = None) -> bool:
    """Whether a text is good enough to stop drawing. A text without a fluency meets no bound on it.

    For a minimum mean score a passed check counts 1, as in ``utilities``: an unsure judge does not prolong the drawing.
    """
    for limit, nats in zip((until.lm_score, until.worst_word), _nats_of(fluency), strict=True):
        if limit is not None and nats > limit:
            return False
    if until.acceptability is not None and _acceptability(fluency) < until.acceptability:
        return False
    passes = [check.passed for check in checks.values()]
    if until.satisfied == "all":
        return all(passes)
    if until.satisfied == "any":
        return any(passes) or not passes
    return mean_score(_with_full_passes(checks)) >= until.satisfied


def utilities(
    criteria: Sequence[Criterion],
    pretrained: Pretrained,
    texts: Sequence[Sequence[str]],
    checks: Sequence[Checks],
    walk: Sequence[float | None] = (),
    fluency: Sequence[Fluency | None] = (),
) -> list[tuple[float, ...]]:
    """Return the criteria of each text as a tuple of numbers, higher is better, to be compared in order.

    ``satisfaction`` counts a text's passed checks, then the mean score with 1 for each passed check: how sure a judge
    is of a passed check decides only between texts that are equal in all criteria. ``lm_score`` is the negative nats
    per token under the model's scorer, ``worst_word`` those of its least likely token: a slip, such as a doubled or a
    missing word, costs many nats in its place but changes the mean of the text little. ``fluency`` weighs both, since
    either a text with a slip or one with many unlikely words may be worse; rarer words that are repeated in a text
    count against it, if there are word frequencies beside the scorer or the model. ``acceptability`` is the probability
    that a reader accepts the text as a sound sentence, for models that have learned it. ``mbr`` is the mean BLEU
    against the other texts (minimum Bayes risk decoding, Kumar and Byrne 2004). Ties are broken by the likelihood of
    the words when the walk wrote them, where that is known (``walk``, in nats per text). The argument ``fluency`` holds
    fluencies computed before; a text that the scorer cannot read ranks last.

    Raises:
        ModelError: a criterion needs the scorer and the model has none, or needs acceptability and the model has
            learned none.
    """
    if BY_SCORER & set(criteria) and not any(fluency):
        fluency = load_scoring(pretrained, reads="acceptability" in criteria).of(
            texts, [pretrained.tokenizer.text(words) for words in texts]
        )
    columns: list[Sequence[float]] = []
    for criterion in criteria:
        if criterion == "satisfaction":
            columns.append([sum(check.passed for check in text_checks.values()) for text_checks in checks])
            columns.append([mean_score(_with_full_passes(text_checks)) for text_checks in checks])
        elif criterion == "fluency":
            counts = _word_counts(pretrained.scorer_folder.parent) or _word_counts(pretrained.folder)
            columns.append(
                [
                    -_fluency_cost(text_fluency, words, counts)
                    for text_fluency, words in zip(fluency, texts, strict=True)
                ]
            )
        elif criterion == "acceptability":
            columns.append([_acceptability(text_fluency) for text_fluency in fluency])
        elif criterion == "lm_score":
            columns.append([-_nats_of(text_fluency)[0] for text_fluency in fluency])
        elif criterion == "worst_word":
            columns.append([-_nats_of(text_fluency)[1] for text_fluency in fluency])
        else:
            columns.append(mean_bleu(texts))
    if "satisfaction" in criteria:
        columns.append([mean_score(text_checks) for text_checks in checks])
    nats_of_walk = [nats for nats in walk if nats is not None]
    if len(nats_of_walk) == len(texts):
        columns.append([-nats for nats in nats_of_walk])
    return list(zip(*columns, strict=True))


@lru_cache(maxsize=8)
def _word_counts(folder: Path) -> WordCounts | None:
    return load_counts(folder)


def _fluency_cost(fluency: Fluency | None, words: Sequence[str], counts: WordCounts | None) -> float:
    """The cost of a text in ``fluency``, in nats."""
    second = fluency.second_nats if fluency is not None else None
    return flaws(fluency, words, counts) + SECOND_SHARE * (second or 0.0)


def _acceptability(fluency: Fluency | None) -> float:
    """The probability that a reader accepts a text; -1 for a text that cannot be judged."""
    acceptability = None if fluency is None else fluency.acceptability
    return -1.0 if acceptability is None else acceptability


def _with_full_passes(checks: Checks) -> Checks:
    return {name: check._replace(score=1.0) if check.passed else check for name, check in checks.items()}


def mean_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """The mean BLEU-4 (smoothed: Lin and Och 2004) of each text against every other text; 0 if there is no other."""
    return [
        sum(sentence_bleu(text, [other], smoothing=2) for j, other in enumerate(texts) if j != i)
        / max(1, len(texts) - 1)
        for i, text in enumerate(texts)
    ]


def _nats_of(fluency: Fluency | None) -> tuple[float, float]:
    """Nats per token, and those of the worst word."""
    return (math.inf, math.inf) if fluency is None else (fluency.lm_score, fluency.worst_nats)
