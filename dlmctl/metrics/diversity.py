"""How much samples differ from each other and from the training text."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from dlmctl.errors import DataError
from dlmctl.metrics.sentence_bleu import Words, sentence_bleu


def distinct_n(samples: Sequence[Words], n: int) -> float:
    """Share of distinct n-grams among all n-grams of all samples, in [0, 1] (Li et al. 2016, dist-n).

    It falls as the number of samples grows, so compare equal numbers.

    Raises:
        DataError: no sample has ``n`` words.
    """
    grams = [tuple(words[at : at + n]) for words in samples for at in range(len(words) - n + 1)]
    if not grams:
        raise DataError(f"no sample has {n} words.")
    return len(set(grams)) / len(grams)


def self_bleu(samples: Sequence[Words], *, references: int = 100, seed: int = 0) -> float:
    """Mean BLEU-4 of each sample against other samples, in [0, 1]; lower is more diverse (Zhu et al. 2018, Texygen).

    With more than ``references`` other samples, each is compared with that many of them, drawn anew for each sample
    with ``seed``: BLEU rises with the number of references, so figures are comparable only for the same number. Zero
    n-gram counts are smoothed (method 1 of Chen and Cherry 2014), as short samples would otherwise score 0.

    Raises:
        DataError: there are fewer than two samples.
    """
    if len(samples) < 2:
        raise DataError("self-BLEU needs two samples or more.")
    rng = random.Random(seed)
    texts = []
    for at in range(len(samples)):
        others = rng.sample(range(len(samples) - 1), min(references, len(samples) - 1))
        texts.append([samples[other + (other >= at)] for other in others])  # skip the sample itself
    return _mean_bleu(samples, texts)


def mean_bleu_to(samples: Sequence[Words], texts: Sequence[Words], *, references: int = 100, seed: int = 0) -> float:
    """Mean BLEU-4 of each sample against ``texts``, in [0, 1], smoothed and drawn as in ``self_bleu``.

    Raises:
        DataError: there are no samples or no texts.
    """
    if not samples or not texts:
        raise DataError("there is nothing to compare.")
    rng = random.Random(seed)
    return _mean_bleu(samples, [rng.sample(texts, min(references, len(texts))) for _ in samples])


def _mean_bleu(samples: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    return sum(map(sentence_bleu, samples, references)) / len(samples)


def novelty(samples: Sequence[Words], training: Iterable[Words]) -> float:
    """Share of samples that do not occur verbatim in the training text, in [0, 1].

    Raises:
        DataError: there are no samples.
    """
    if not samples:
        raise DataError("there are no samples.")
    known = {tuple(words) for words in training}
    return sum(tuple(words) not in known for words in samples) / len(samples)
