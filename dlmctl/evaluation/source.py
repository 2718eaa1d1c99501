"""Evaluation of a model with sources against references (data-to-text, infilling): one text for each source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlmctl.checkpoint.bundled import model_name
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.datasets.conditions import select_fields
from dlmctl.datasets.dataset import load_split, load_vocabulary
from dlmctl.datasets.lines import parse_json, plain_suffix, raw_lines
from dlmctl.datasets.readers import read_meanings
from dlmctl.errors import DataError, ModelError
from dlmctl.generation.generate import generate
from dlmctl.generation.prompts import read_prompt
from dlmctl.generation.results import Generation
from dlmctl.generation.sample_groups import UNSCORED
from dlmctl.metrics.bertscore import bert_score, require_encoder
from dlmctl.metrics.overlap import overlap
from dlmctl.metrics.text_files import Split, mteval_words
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.sampling.draw import Progress
from dlmctl.text.fields import Value


class Task(NamedTuple):
    """A source and its human-written references."""

    source: dict[str, Value]
    references: list[str]


def source_fields(pretrained: Pretrained) -> list[str]:
    """The fields of the sources that a model takes.

    Raises:
        ModelError: the model takes no source.
    """
    if pretrained.latent.config.source is None:
        raise ModelError(
            "takes no source.",
            where=model_name(pretrained.folder),
            remedy="Train one with `model.source`; docs/training.md.",
        )
    return pretrained.latent.config.source.fields


def read_tasks(data: Path, split: str, fields: Sequence[str]) -> list[Task]:
    """The distinct sources of a data set, in order of first appearance, each with all its texts.

    Args:
        data: a prepared data set; or the JSON of αNLG as released, with its observations as ``before`` and ``after``;
            or a CSV of the E2E release.
        fields: the fields of a source.

    Raises:
        DataError: there is no such data, or a row has none of these fields.
    """
    if data.is_file():
        tasks = _read_e2e(data) if plain_suffix(data) == ".csv" else _read_anlg(data)
    else:
        vocabulary, groups = load_vocabulary(data), dict[str, Task]()
        rows = load_split(data, split, vocabulary)
        for number, record in enumerate(rows.read_fields()):
            source = select_fields(fields, record)
            task = groups.setdefault(json.dumps(source), Task(source, []))
            task.references.append(vocabulary.text(vocabulary.words(rows.row(number).tolist())))
        tasks = list(groups.values())
    for task in tasks:
        if not select_fields(fields, task.source):
            raise DataError(f"a row has none of the fields {', '.join(fields)}.", where=str(data))
    return tasks


def _read_e2e(path: Path) -> list[Task]:
    """A task for each distinct meaning representation of the E2E release; ``testset.csv`` has no references."""
    groups: dict[str, Task] = {}
    for fields, text in read_meanings(path):
        task = groups.setdefault(json.dumps(fields), Task(fields, []))
        task.references.extend([text] if text else [])
    return list(groups.values())


def _read_anlg(path: Path) -> list[Task]:
    try:
        items = parse_json("".join(line.text for line in raw_lines(path))).values()
        return [
            Task({"before": item["obs1"], "after": item["obs2"]}, [str(text) for text in item["gold_labels"]])
            for item in items
        ]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"is not in the format of the aNLG release: {error}.",
            where=str(path),
            remedy="Give a file of that release, or the folder of a prepared data set.",
        ) from None


def evaluate_source(
    pretrained: Pretrained,
    tasks: Sequence[Task],
    *,
    seed: int = 0,
    candidates: int = 1,
    sampler: SamplerSettings | None = None,
    encoder: Path | None = None,
    encoder_layer: int = -1,
    words: Split = mteval_words,
    progress: Progress | None = None,
) -> tuple[dict[str, float], Generation]:
    """Draw one text for each source and compare it with its references.

    Args:
        candidates: texts drawn for each source; the one most similar to the others is kept.
        encoder: folder of the encoder for BERTScore; None for no BERTScore.
        encoder_layer: its layer; see ``metrics.bertscore``.
        words: splits texts into the words that are compared.

    Returns:
        Figures and texts. Figures: ``sources``; ``references``, the mean number per source; over the sources with
        references the scores of ``metrics.overlap`` (on ``words``) and, with an ``encoder``, ``bert_score``;
        ``seconds_per_source``.

    Raises:
        ModelError: the model takes no source.
    """
    fields = source_fields(pretrained)
    if encoder is not None:
        require_encoder(encoder)  # fails before anything is drawn
    result = generate(
        model=pretrained,
        given=read_prompt(pretrained, None, [select_fields(fields, task.source) for task in tasks], strict=False),
        samples=len(tasks),
        seed=seed,
        sampler=sampler,
        candidates=candidates,
        rank_by=["mbr"],
        groups=UNSCORED,
        progress=progress,
    )
    figures = {"sources": len(tasks), "references": sum(len(task.references) for task in tasks) / len(tasks)}
    compared = [(sample.text, task.references) for sample, task in zip(result, tasks, strict=True) if task.references]
    if compared:
        texts, references = [text for text, _ in compared], [group for _, group in compared]
        reference_words = [[words(text) for text in group] for group in references]
        figures |= overlap([words(text) for text in texts], reference_words)._asdict()
        if encoder is not None:
            figures["bert_score"] = sum(bert_score(texts, references, encoder, encoder_layer)) / len(compared)
    return {**figures, "seconds_per_source": result.seconds / len(tasks)}, result
