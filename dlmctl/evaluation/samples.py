"""Quality of a model's free samples: fluency under the scorer, diversity, novelty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from dlmctl.annotators.scorer import Judge, token_nats
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.checkpoint.resolve import SCORER
from dlmctl.datasets.dataset import Split, load_split
from dlmctl.errors import DataError, ModelError
from dlmctl.generation.generate import generate
from dlmctl.generation.sample_groups import UNSCORED
from dlmctl.metrics.diversity import distinct_n, novelty, self_bleu
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
    """Figures of free samples, and the same figures of the validation split.

    Returns:
        ``lm_score`` (see ``nats_of``), ``distinct_1`` to ``distinct_4``, ``self_bleu``, ``novelty`` (share of samples
        that equal no training sentence), each also as ``valid_...`` for the validation text; figures that depend on the
        number of texts use as many validation rows as samples. Also ``seconds_per_sample``. Diversity figures that are
        undefined for so few or so short texts are left out.

    Raises:
        UserError: the scorer or the data set is missing.
    """
    nats = nats_of(pretrained, scorer)
    if nats is None:
        remedy = "Train one with `dlmctl train scorer`, or name one with --scorer."
        raise ModelError("no scorer here.", where=str(pretrained.folder / SCORER), remedy=remedy)
    tokenizer = pretrained.tokenizer
    training = sentences_of(load_split(data, "train", tokenizer), tokenizer)
    valid = sentences_of(load_split(data, "valid", tokenizer), tokenizer)
    result = generate(model=pretrained, samples=samples, seed=seed, sampler=sampler, groups=UNSCORED, progress=progress)
    figures: dict[str, float] = {}
    texts = [sample.words for sample in result]
    # Validation rows may be grouped (E2E's by mr), so that neighbours are alike; an even stride samples them fairly.
    stride = max(1, len(valid) // samples)
    for prefix, sentences in (("", texts), ("valid_", valid[::stride][:samples])):
        measured = {**_diversity(sentences), "novelty": novelty(sentences, training)}
        measured["lm_score"] = nats(valid if prefix else sentences)
        figures |= {f"{prefix}{name}": value for name, value in measured.items()}
    figures["seconds_per_sample"] = result.seconds / samples
    return figures


def text_figures(sentences: Sequence[Sequence[str]], judge: Judge | None) -> dict[str, float]:
    """Figures of texts that need no comparison.

    Returns:
        ``measured`` (number of texts), ``words`` (mean length), ``distinct_1`` to ``distinct_4``, ``self_bleu``; with a
        ``judge`` also ``lm_score`` (nats per token) and ``perplexity`` (e to that). Diversity figures that so few or so
        short texts do not have are left out. ``cut``, if not 0, is the number of texts longer than the judge can read;
        only their first words are scored.
    """
    figures = {"measured": len(sentences), "words": sum(map(len, sentences)) / len(sentences)}
    if judge is not None:
        text_nats = token_nats(*judge, sentences, cut=True)
        nats = sum(map(sum, text_nats)) / sum(map(len, text_nats))
        figures |= {"lm_score": nats, "perplexity": math.exp(nats)}
        if cut := sum(len(tokens) <= len(words) for tokens, words in zip(text_nats, sentences, strict=True)):
            figures["cut"] = cut
    return figures | _diversity(sentences)


def _diversity(sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    figures = {}
    for name, measure in DIVERSITY.items():
        with suppress(DataError):
            figures[name] = measure(sentences)
    return figures
