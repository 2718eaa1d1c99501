"""Drawing many texts with their latents, and measuring fluency, diversity and similarity to reference texts."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlmctl import processes
from dlmctl.annotators.causal import is_causal_model
from dlmctl.annotators.scorer import scorer_of
from dlmctl.checkpoint.resolve import resolve
from dlmctl.checkpoint.scorer import scorer_folder
from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.datasets.readers import read_corpus, sniff
from dlmctl.errors import DataError
from dlmctl.evaluation.samples import sentences_of, text_figures
from dlmctl.generation.bulk import generate_shards
from dlmctl.generation.output import atomic_write
from dlmctl.generation.run import TextProgress
from dlmctl.generation.shards import merge
from dlmctl.metrics.diversity import mean_bleu_to, novelty

if TYPE_CHECKING:
    from dlmctl.recipe.recipe import Recipe

SHARDS, METRICS = "shards", "metrics.json"
ENDINGS = ".txt", ".jsonl", ".npz"
MEASURED = 1000


class Decoded(NamedTuple):
    """The result of ``decode``.

    Attributes:
        samples: figures of the texts, as in ``samples.text_figures``, and with references also ``novelty`` and
            ``bleu_to_references``; references: ``text_figures`` of the references, if any.
        rows, drawn: all texts, and the texts drawn by this call.
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

    Writes ``out/shards`` (see ``bulk.generate_shards``: the same call resumes an interrupted one), merged into
    ``samples.txt``, ``samples.jsonl`` and ``samples.npz`` (texts and latents), and ``metrics.json``.

    Args:
        references: a file of texts, or a prepared data set, whose validation split is used.
        scorer: folder of the scorer; by default that of the recipe, if it gives nats per token, or the model's own, and
            without one there is no perplexity.
        measured: number of texts to measure, the first ones, against as many evenly spaced references. Diversity falls
            with the number of texts, so figures are comparable only for the same number.

    Returns:
        None in all processes except the first.

    Raises:
        UserError: as ``generate_shards``; the references or the scorer cannot be read.
    """
    reference_words = _reference_words(references) if references is not None else None
    named = None if recipe.scorer is None else scorer_folder(recipe.scorer)
    if scorer is None and named is not None and not is_causal_model(named):
        scorer = named
    judge = scorer_of(resolve(recipe.model), scorer)
    run, drawn, seconds = generate_shards(recipe, out / SHARDS, shard_rows=shard_rows, latents=True, progress=progress)
    if not processes.is_main():
        return None
    for ending in ENDINGS:
        merge(run, out / f"samples{ending}")
    words = [row["words"] for row in islice(run.records(), measured)]
    figures = text_figures(words, judge)
    reference_figures = None
    if reference_words is not None:
        chosen = reference_words[:: max(1, len(reference_words) // len(words))][: len(words)]
        reference_figures = text_figures(chosen, judge)
        figures |= {
            "novelty": novelty(words, reference_words),
            "bleu_to_references": mean_bleu_to(words, reference_words),
        }
    decoded = Decoded(figures, reference_figures, run.rows, drawn, seconds)
    with atomic_write(out / METRICS) as partial:
        partial.write_text(json.dumps(report(decoded), indent=2) + "\n", "utf-8")
    return decoded


def report(decoded: Decoded) -> dict[str, Any]:
    """A result as JSON values."""
    return {
        "rows": decoded.rows,
        "drawn": decoded.drawn,
        "seconds": round(decoded.seconds, 3),
        "samples": decoded.samples,
        "references": decoded.references,
    }


def _reference_words(path: Path) -> list[list[str]]:
    """The texts of a file or of a prepared data set, split into words as models do."""
    if path.is_dir():
        vocabulary = load_vocabulary(path)
        sentences = sentences_of(load_split(path, "valid", vocabulary), vocabulary)
    else:
        sentences = [record.words for record in read_corpus(path, sniff(path))]
    if not sentences:
        raise DataError("holds no texts.", where=str(path))
    return sentences
