"""A model with a source against references: one text for each source, as data-to-text and infilling are measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlmctl.checkpoint import Pretrained
from dlmctl.condition import pick
from dlmctl.dataset import load_split, load_vocabulary
from dlmctl.errors import DataError, ModelError
from dlmctl.evaluation.overlap import overlap
from dlmctl.evaluation.text_files import mteval_words
from dlmctl.fields import Value
from dlmctl.generation import Generation, generate
from dlmctl.sampling import Progress
from dlmctl.settings import Criterion, SamplerSettings


class Task(NamedTuple):
    """A source and the texts that people wrote for it."""

    source: dict[str, Value]
    references: list[str]


def source_fields(pretrained: Pretrained) -> list[str]:
    """The fields of the sources that a model takes.

    Raises:
        ModelError: it takes none.
    """
    if pretrained.model.config.source is None:
        raise ModelError(
            "takes no source.", where=str(pretrained.folder), remedy="Train one with `model.source`; docs/training.md."
        )
    return pretrained.model.config.source.fields


def read_tasks(data: Path, split: str, fields: Sequence[str]) -> list[Task]:
    """The different sources of a data set, in order of first appearance, each with all its texts.

    Args:
        data: a prepared data set; or JSON of αNLG as released, its observations ``before`` and ``after``.
        fields: those that make a source.

    Raises:
        DataError: there is no such data, or it says nothing in these fields.
    """
    if data.is_file():
        tasks = _read_anlg(data)
    else:
        rows, words, groups = load_split(data, split), load_vocabulary(data), dict[str, Task]()
        for number, record in enumerate(rows.read_fields()):
            source = pick(fields, record)
            task = groups.setdefault(json.dumps(source), Task(source, []))
            task.references.append(words.text(words.words(rows.row(number).tolist())))
        tasks = list(groups.values())
    for task in tasks:
        if not pick(fields, task.source):
            raise DataError(f"a row has none of the fields {', '.join(fields)}.", where=str(data))
    return tasks


def _read_anlg(path: Path) -> list[Task]:
    try:
        items = json.loads(path.read_text("utf-8")).values()
        return [
            Task({"before": item["obs1"], "after": item["obs2"]}, [str(text) for text in item["gold_labels"]])
            for item in items
        ]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
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
    rank_by: Sequence[Criterion] = ("mbr",),
    sampler: SamplerSettings | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, float], Generation]:
    """Draw one text for each source and compare it with its references.

    Args:
        candidates: texts drawn for each source, of which the best by ``rank_by`` is kept.

    Returns:
        Figures and texts. Figures: ``sources``, ``references`` for each on average, the scores of
        ``evaluation.overlap`` (words split as ``dlmctl evaluate overlap`` does it), ``seconds_per_source``.

    Raises:
        ModelError: the model takes no source.
    """
    fields = source_fields(pretrained)
    result = generate(
        model=pretrained,
        source=[pick(fields, task.source) for task in tasks],
        samples=len(tasks),
        seed=seed,
        sampler=sampler,
        candidates=candidates,
        rank_by=rank_by,
        progress=progress,
    )
    scores = overlap(
        [mteval_words(sample.text) for sample in result],
        [[mteval_words(text) for text in task.references] for task in tasks],
    )
    return {
        "sources": float(len(tasks)),
        "references": sum(len(task.references) for task in tasks) / len(tasks),
        **scores._asdict(),
        "seconds_per_source": result.seconds / len(tasks),
    }, result
