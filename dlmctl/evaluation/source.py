"""A model with a source against references: one text for each source, as data-to-text and infilling are measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.datasets.conditions import pick
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
    """A source and the texts that people wrote for it."""

    source: dict[str, Value]
    references: list[str]


def source_fields(pretrained: Pretrained) -> list[str]:
    """The fields of the sources that a model takes.

    Raises:
        ModelError: it takes none.
    """
    if pretrained.latent.config.source is None:
        raise ModelError(
            "takes no source.", where=str(pretrained.folder), remedy="Train one with `model.source`; docs/training.md."
        )
    return pretrained.latent.config.source.fields


def read_tasks(data: Path, split: str, fields: Sequence[str]) -> list[Task]:
    """The different sources of a data set, in order of first appearance, each with all its texts.

    Args:
        data: a prepared data set; or JSON of αNLG as released, its observations ``before`` and ``after``; or a CSV
            of the E2E release.
        fields: those that make a source.

    Raises:
        DataError: there is no such data, or it says nothing in these fields.
    """
    if data.is_file():
        tasks = _read_e2e(data) if plain_suffix(data) == ".csv" else _read_anlg(data)
    else:
        words, groups = load_vocabulary(data), dict[str, Task]()
        rows = load_split(data, split, words)
        for number, record in enumerate(rows.read_fields()):
            source = pick(fields, record)
            task = groups.setdefault(json.dumps(source), Task(source, []))
            task.references.append(words.text(words.words(rows.row(number).tolist())))
        tasks = list(groups.values())
    for task in tasks:
        if not pick(fields, task.source):
            raise DataError(f"a row has none of the fields {', '.join(fields)}.", where=str(data))
    return tasks


def _read_e2e(path: Path) -> list[Task]:
    """A task for each different meaning representation of the E2E release; ``testset.csv`` has no references."""
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
            f"is not aNLG as it is released: {error}.",
            where=str(path),
            remedy="Give that, or the folder of a prepared data set.",
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
        candidates: texts drawn for each source, of which the one most like the others is kept.
        encoder: folder of the encoder that BERTScore is measured with; None for no BERTScore.
        encoder_layer: the layer of it; see ``evaluation.bertscore``.
        words: texts to the words that are compared.

    Returns:
        Figures and texts. Figures: ``sources``, ``references`` for each on average; of the sources that have
        references the scores of ``metrics.overlap`` (of ``words``) and
        ``bert_score`` where there is an ``encoder``; ``seconds_per_source``.

    Raises:
        ModelError: the model takes no source.
    """
    fields = source_fields(pretrained)
    if encoder is not None:
        require_encoder(encoder)  # rather now than after all has been drawn
    result = generate(
        model=pretrained,
        given=read_prompt(pretrained, None, [pick(fields, task.source) for task in tasks], strict=False),
        samples=len(tasks),
        seed=seed,
        sampler=sampler,
        candidates=candidates,
        rank_by=["mbr"],
        company=UNSCORED,
        progress=progress,
    )
    figures = {"sources": len(tasks), "references": sum(len(task.references) for task in tasks) / len(tasks)}
    compared = [(sample.text, task.references) for sample, task in zip(result, tasks, strict=True) if task.references]
    if compared:
        texts, references = [text for text, _ in compared], [group for _, group in compared]
        wanted = [[words(text) for text in group] for group in references]
        figures |= overlap([words(text) for text in texts], wanted)._asdict()
        if encoder is not None:
            figures["bert_score"] = sum(bert_score(texts, references, encoder, encoder_layer)) / len(compared)
    return {**figures, "seconds_per_source": result.seconds / len(tasks)}, result
