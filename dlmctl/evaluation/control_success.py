"""Control success and fluency on a list of targets, with and without guidance."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control
from dlmctl.control.combined import check_all
from dlmctl.control.registry import find_control
from dlmctl.datasets.lines import json_lines
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import DataError, UserError
from dlmctl.generation.generate import generate
from dlmctl.generation.sample_groups import UNSCORED
from dlmctl.metrics.nats import nats_of
from dlmctl.recipe.recipe import Recipe
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling.draw import Progress
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.possible_draws import impossible_draws

TARGET_LINES = 'Targets are JSON lines: sentences, {"words": ["A", "dog", "barks", "."]}, or parameters of the control.'


def evaluate_control(
    control: Control[Any],
    pretrained: Pretrained,
    targets: int,
    *,
    seed: int = 0,
    settings: Recipe | None = None,
    scorer: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Draw one sample for each target and check it with the control's independent check.

    Args:
        control: made with ``each`` from one set of parameters per target, or ``All`` of such controls.
        targets: number of targets.
        settings: sampler, guidance, ``until``, ``candidates``, ``rank_by`` and ``scorer`` of the guided samples;
            unguided samples use the same sampler.
        scorer: of the measurement, if it is not that of the settings or of the model.

    Returns:
        ``targets``; ``impossible``, the number of targets that cannot be met on this model, which count as failures;
        ``success`` (mean score: for POS the share of words with their tag, as in the paper), ``passed`` (share of texts
        that pass completely), ``lm_score`` (see ``nats_of``; only with a scorer), ``seconds_per_sample``; the same with
        ``unguided_`` for free samples of the same seed, as a baseline. For a composition also the success of each part.
    """
    settings = settings or Recipe()
    if settings.scorer is not None:
        pretrained = pretrained.scored_by(settings.scorer)
    nats = nats_of(pretrained, scorer)
    control = control.for_model(pretrained)
    possible = possible_targets(control, pretrained, targets, seed=seed, sampler=settings.sampler)
    figures: dict[str, float] = {"targets": targets, "impossible": targets - len(possible)}
    for prefix, applied in (("", control), ("unguided_", None)):
        result = generate(
            applied,
            model=pretrained,
            samples=possible,
            seed=seed,
            sampler=settings.sampler,
            guidance=settings.guidance,
            until=settings.until if applied is not None else None,
            candidates=settings.candidates if applied is not None else 1,
            rank_by=settings.rank_by,
            second_scorer=settings.second_scorer,
            groups=UNSCORED,
            progress=progress,
        )
        texts = [sample.words for sample in result]
        verdicts = check_all(control, possible, texts, [sample.text for sample in result])
        scores = {label: sum(row[label].score for row in verdicts) / targets for label in verdicts[0]}
        figures[f"{prefix}success"] = sum(scores.values()) / len(scores)
        figures[f"{prefix}passed"] = sum(all(check.passed for check in row.values()) for row in verdicts) / targets
        if len(scores) > 1:
            figures |= {f"{prefix}success_{label}": score for label, score in scores.items()}
        if nats is not None:
            figures[f"{prefix}lm_score"] = nats(texts)
        figures[f"{prefix}seconds_per_sample"] = result.seconds / len(possible)
    return figures


def possible_targets(
    control: Control[Any],
    pretrained: Pretrained,
    targets: int,
    *,
    seed: int = 0,
    sampler: SamplerSettings | None = None,
) -> list[int]:
    """The numbers of the targets of an attached control that are possible on this model.

    Args:
        sampler: of the draws; for models over tokens it sets how long a text may be.

    Raises:
        RecipeError: no target is possible; the message explains the first.
    """
    plan = Plan(pretrained, control, sampler or SamplerSettings(), Guidance(), 1)
    refused = impossible_draws(plan, [Draw(seed, target) for target in range(targets)])
    if len(refused) == targets:
        raise next(iter(refused.values()))
    return [target for target in range(targets) if target not in refused]


def read_targets(
    name: str,
    path: Path,
    limit: int | None = None,
    params: dict[str, Any] | None = None,
    judge: str | None = None,
) -> tuple[Control[Any], int]:
    """A control with one set of parameters for each line, and the number of lines.

    Args:
        path: JSON lines; the control's ``from_target`` makes parameters from a line.
        params: parameters that replace those of every target.
        judge: the tagger or parser that reads targets from sentences and checks, for controls with this parameter.

    Raises:
        UserError: the control cannot read its targets from such lines.
        DataError: the file is missing or empty, or a line is not a target of this control.
    """
    kind = find_control(name)
    if judge is not None and "judge" not in kind.Params.model_fields:
        raise UserError(f"the control {name!r} is not checked by a tagger or parser.", where="--judge")
    judge_param = {} if judge is None else {"judge": judge}
    targets = []
    for number, value in islice(json_lines(path, TARGET_LINES), limit):
        try:
            record = _without_structure(value)
            target = kind.from_target({**record, **judge_param} if isinstance(record, dict) else record)
            targets.append(kind.Params.model_validate({**target.model_dump(), **judge_param, **(params or {})}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"is not a target of {name}: {_reason(error)}.", where=f"{path}:{number}") from None
    if not targets:
        raise DataError("holds no targets.", where=str(path))
    return kind.each(targets), len(targets)


def _without_structure(target: Any) -> Any:
    """A target without the START, END and line break around the words in files of Diffusion-LM.

    ``words_`` of such a file becomes ``words``, and spans are shifted.
    """
    if not isinstance(target, dict) or not isinstance(target.get("words_"), list):
        return target
    words = target["words_"]
    kept = [at for at, word in enumerate(words) if word not in ("START", "END", "\n")]
    new_positions = {at: new for new, at in enumerate(kept)}
    cleaned = {**target, "words": [words[at] for at in kept]}
    del cleaned["words_"]
    if isinstance(target.get("spans"), list):
        cleaned["spans"] = [
            [new_positions[start], new_positions[end], label]
            for start, end, label in target["spans"]
            if start in new_positions and end in new_positions
        ]
    return cleaned


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "it"
        return (
            f"{name} is required"
            if first["type"] == "missing"
            else f"{name}: {first['msg'].removeprefix('Value error, ')}"
        )
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
