"""How good a model's free samples are: fluency by the scorer, diversity, novelty."""

from __future__ import annotations

from pathlib import Path

from dlmctl.checkpoint import Pretrained
from dlmctl.dataset import Split, load_split
from dlmctl.evaluation.diversity import distinct_n, novelty, self_bleu
from dlmctl.evaluation.lm_score import lm_score, load_scorer, mean_nats
from dlmctl.generation import generate
from dlmctl.sampling import Progress
from dlmctl.settings import SamplerSettings
from dlmctl.tokenizer import Tokenizer


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
    scorer: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Figures of free samples beside the same figures of the validation split.

    Returns:
        ``lm_score`` (nats per token under the scorer, END counted), ``distinct_1`` to ``distinct_4``,
        ``self_bleu``, ``novelty`` (share of samples that no training sentence equals), each also as
        ``valid_...`` for the validation text, over as many of its rows as there are samples where
        the figure depends on their number; ``seconds_per_sample``.

    Raises:
        UserError: the scorer or the data set is missing.
    """
    judge, judge_words = load_scorer(scorer or pretrained.folder / "scorer")
    tokenizer = pretrained.tokenizer
    training = sentences_of(load_split(data, "train"), tokenizer)
    valid = sentences_of(load_split(data, "valid"), tokenizer)
    result = generate(model=pretrained, samples=samples, seed=seed, sampler=sampler, progress=progress)
    figures: dict[str, float] = {}
    texts = [sample.words for sample in result]
    # Validation rows stand by mr, so neighbours are alike; an even stride makes a fair sample of them.
    stride = max(1, len(valid) // samples)
    for prefix, sentences in (("", texts), ("valid_", valid[::stride][:samples])):
        scored = valid if prefix else sentences
        figures[f"{prefix}lm_score"] = mean_nats(lm_score(judge, judge_words, scored), scored)
        for n in range(1, 5):
            figures[f"{prefix}distinct_{n}"] = distinct_n(sentences, n)
        figures[f"{prefix}self_bleu"] = self_bleu(sentences)
        figures[f"{prefix}novelty"] = novelty(sentences, training)
    figures["seconds_per_sample"] = result.seconds / samples
    return figures
