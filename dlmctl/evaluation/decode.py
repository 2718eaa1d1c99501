"""Many texts of a model with their latents, and what they are worth: fluency, diversity, nearness to other texts."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlmctl import processes
from dlmctl.checkpoint.resolve import resolve
from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.datasets.readers import read_corpus, sniff
from dlmctl.errors import DataError
from dlmctl.evaluation.samples import figures_of, sentences_of
from dlmctl.generation.bulk import generate_shards
from dlmctl.generation.run import TextProgress
from dlmctl.generation.shards import merge
from dlmctl.metrics.diversity import mean_bleu_to, novelty
from dlmctl.metrics.lm_score import scorer_of

if TYPE_CHECKING:
    from dlmctl.recipe.recipe import Recipe

SHARDS, METRICS = "shards", "metrics.json"
ENDINGS = ".txt", ".jsonl", ".npz"
MEASURED = 1000


class Decoded(NamedTuple):
    """What ``decode`` came to.

    Attributes:
        samples: figures of the texts, as in ``samples.figures_of``, and beside references ``novelty`` and
            ``bleu_to_references``; references: the same figures of these, if they were given.
        rows, drawn: texts in all, and texts drawn by this call.
    """

    samples: dict[str, float]
    references: dict[str, float] | None
    rows: int
    drawn: int
    seconds: float


def decode(
    recipe: Recipe,
    out: Path,
    *,
    references: Path | None = None,
    scorer: Path | None = None,
    measured: int = MEASURED,
    shard_rows: int | None = None,
    progress: TextProgress | None = None,
) -> Decoded | None:
    """Draw the samples of a recipe and measure them.

    Writes ``out/shards`` (see ``bulk.generate_shards``: the same call continues what was cut off), merged into
    ``samples.txt``, ``samples.jsonl`` and ``samples.npz`` (texts and latents), and ``metrics.json``.

    Args:
        references: a file of texts, or a prepared data set, whose validation split is taken.
        scorer: folder of the scorer; by default the one beside the model, and no perplexity where there is none.
        measured: how many texts are measured, the first ones; as many references are, spread evenly. Diversity falls
            with the number of texts, so figures compare for the same number only.

    Returns:
        None in all processes but the first.

    Raises:
        UserError: as ``generate_shards``; the references or the scorer cannot be read.
    """
    texts = _reference_words(references) if references is not None else None
    judge = scorer_of(resolve(recipe.model), scorer)
    run, drawn, seconds = generate_shards(recipe, out / SHARDS, shard_rows=shard_rows, latents=True, progress=progress)
    if not processes.is_main():
        return None
    for ending in ENDINGS:
        merge(run, out / f"samples{ending}")
    words = [row["words"] for row in islice(run.records(), measured)]
    figures = figures_of(words, judge)
    others = None
    if texts is not None:
        chosen = texts[:: max(1, len(texts) // len(words))][: len(words)]
        others = figures_of(chosen, judge)
        figures |= {"novelty": novelty(words, texts), "bleu_to_references": mean_bleu_to(words, texts)}
    made = Decoded(figures, others, run.rows, drawn, seconds)
    (out / METRICS).write_text(json.dumps(report(made), indent=2) + "\n", "utf-8")
    return made


def report(decoded: Decoded) -> dict[str, Any]:
    """A result as plain values."""
    return {
        "rows": decoded.rows,
        "drawn": decoded.drawn,
        "seconds": round(decoded.seconds, 3),
        "samples": decoded.samples,
        "references": decoded.references,
    }


def _reference_words(path: Path) -> list[list[str]]:
    """The texts of a file or of a prepared set, split into words as the models do it."""
    if path.is_dir():
        vocabulary = load_vocabulary(path)
        found = sentences_of(load_split(path, "valid", vocabulary), vocabulary)
    else:
        found = [record.words for record in read_corpus(path, sniff(path))]
    if not found:
        raise DataError("holds no texts.", where=str(path))
    return found
