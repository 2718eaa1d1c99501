"""Control success and fluency on a list of targets, guided and unguided side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dlmctl.checkpoint import Pretrained
from dlmctl.control import Control, find_control
from dlmctl.errors import DataError, UserError
from dlmctl.evaluation.lm_score import lm_score, load_scorer, mean_nats
from dlmctl.generation import generate
from dlmctl.sampling import Progress
from dlmctl.settings import Guidance, SamplerSettings


def evaluate_control(
    control: Control[Any],
    pretrained: Pretrained,
    targets: int,
    *,
    seed: int = 0,
    sampler: SamplerSettings | None = None,
    guidance: Guidance | None = None,
    scorer: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Draw one sample for each target and check it by the control's own, independent check.

    Args:
        control: made with ``each`` from one set of parameters per target.
        targets: how many.

    Returns:
        ``success`` (mean score: for POS the share of words with their tag, as the paper counts), ``passed``
        (share of texts that pass whole), ``lm_score`` (nats per token under the scorer), ``seconds_per_sample``;
        the same with ``unguided_`` for samples of the same canvases and seed without guidance.
    """
    judge, judge_words = load_scorer(scorer or pretrained.folder / "scorer")
    strength = guidance or Guidance()
    figures: dict[str, float] = {}
    for prefix, used in (("", strength), ("unguided_", strength.model_copy(update={"scale": 0.0}))):
        result = generate(
            control,
            model=pretrained,
            samples=targets,
            seed=seed,
            sampler=sampler,
            guidance=used,
            progress=progress,
        )
        checks = [next(iter(sample.checks.values())) for sample in result]
        figures[f"{prefix}success"] = sum(check.score for check in checks) / targets
        figures[f"{prefix}passed"] = sum(check.passed for check in checks) / targets
        texts = [sample.words for sample in result]
        figures[f"{prefix}lm_score"] = mean_nats(lm_score(judge, judge_words, texts), texts)
        figures[f"{prefix}seconds_per_sample"] = result.seconds / targets
    return figures


def read_targets(name: str, path: Path, limit: int | None = None) -> tuple[Control[Any], int]:
    """A control with one set of parameters for each line's ``words``, and how many there are.

    The control's own ``from_words`` says what the words of a target satisfy.

    Raises:
        UserError: the control has no ``from_words``.
        DataError: the file is missing, empty, or a line has no list ``words``.
    """
    kind = find_control(name)
    from_words = getattr(kind, "from_words", None)
    if from_words is None:
        raise UserError(f"the control {name!r} cannot take its targets from sentences.")
    try:
        lines = path.read_text("utf-8").splitlines()[:limit]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.", where=str(path)) from None
    sentences = []
    for number, line in enumerate(lines, start=1):
        try:
            words = json.loads(line)["words"]
        except (ValueError, KeyError, TypeError):
            raise DataError("is not a JSON object with a list `words`.", where=f"{path}:{number}") from None
        sentences.append(words)
    if not sentences:
        raise DataError("holds no targets.", where=str(path))
    return kind.each(from_words(sentences)), len(sentences)
