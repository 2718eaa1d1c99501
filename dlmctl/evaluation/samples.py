"""How good a model's free samples are: fluency by the scorer, diversity, novelty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.datasets.dataset import Split, load_split
from dlmctl.errors import DataError, ModelError
from dlmctl.generation.generate import generate
from dlmctl.generation.sample_groups import UNSCORED
from dlmctl.metrics.diversity import distinct_n, novelty, self_bleu
from dlmctl.metrics.lm_score import Judge, token_nats
from dlmctl.metrics.nats import nats_of
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.draw import Progress
from dlmctl.text.tokenizer import Tokenizer

DIVERSITY: dict[str, Callable[[Sequence[Sequence[str]]], float]] = {
    **{f"distinct_{n}": partial(distinct_n, n=n) for n in range(1, 5)},
    "self_bleu": self_bleu,
}


def sentences_of(split: Split, tokenizer: Tokenizer) -> list[list[str]]:
    """The rows of a split as words."""
    return [tokenizer.words(split.row(row).tolist()) for row in range(len(split))]


def evaluate_samples(
    pretrained: Pretrained,
    data: Path,
    *,
    samples: int = 1000,
    seed: int = 0,
    sampler: SamplerSettings | None = None,
    scorer: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Figures of free samples beside the same figures of the validation split.

    Returns:
        ``lm_score`` (see ``nats_of``), ``distinct_1`` to ``distinct_4``,
        ``self_bleu``, ``novelty`` (share of samples that no training sentence equals), each also as
        ``valid_...`` for the validation text, over as many of its rows as there are samples where
        the figure depends on their number; ``seconds_per_sample``. A figure of diversity that so few or so short
        texts do not have is left out.

    Raises:
        UserError: the scorer or the data set is missing.
    """
    nats = nats_of(pretrained, scorer)
    if nats is None:
        remedy = "Make one with `dlmctl train scorer`, or name one with --scorer."
        raise ModelError("no scorer here.", where=str(pretrained.folder / "scorer"), remedy=remedy)
    tokenizer = pretrained.tokenizer
    training = sentences_of(load_split(data, "train", tokenizer), tokenizer)
    valid = sentences_of(load_split(data, "valid", tokenizer), tokenizer)
    result = generate(
        model=pretrained, samples=samples, seed=seed, sampler=sampler, company=UNSCORED, progress=progress
    )
    figures: dict[str, float] = {}
    texts = [sample.words for sample in result]
    # Validation rows stand by mr, so neighbours are alike; an even stride makes a fair sample of them.
    stride = max(1, len(valid) // samples)
    for prefix, sentences in (("", texts), ("valid_", valid[::stride][:samples])):
        found = {**_diversity(sentences), "novelty": novelty(sentences, training)}
        found["lm_score"] = nats(valid if prefix else sentences)
        figures |= {f"{prefix}{name}": value for name, value in found.items()}
    figures["seconds_per_sample"] = result.seconds / samples
    return figures


def figures_of(sentences: Sequence[Sequence[str]], judge: Judge | None) -> dict[str, float]:
    """Figures of texts by themselves.

    Returns:
        ``measured`` (how many texts), ``words`` (their mean length), with a ``judge`` its ``lm_score`` (nats per token)
        and the ``perplexity`` (e to that), ``distinct_1`` to ``distinct_4``, ``self_bleu``. Of texts that are too short
        or too few for a figure of diversity it is left out. ``cut``, where there are any: texts longer than the judge
        can read, whose first words are scored.
    """
    figures = {"measured": len(sentences), "words": sum(map(len, sentences)) / len(sentences)}
    if judge is not None:
        scored = token_nats(*judge, sentences, cut=True)
        nats = sum(map(sum, scored)) / sum(map(len, scored))
        figures |= {"lm_score": nats, "perplexity": math.exp(nats)}
        if cut := sum(len(some) <= len(words) for some, words in zip(scored, sentences, strict=True)):
            figures["cut"] = cut
    return figures | _diversity(sentences)


def _diversity(sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    figures = {}
    for name, measure in DIVERSITY.items():
        with suppress(DataError):
            figures[name] = measure(sentences)
    return figures
