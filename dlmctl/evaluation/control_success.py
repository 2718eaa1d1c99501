"""Control success and fluency on a list of targets, with and without guidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Composite, Control
from dlmctl.control.check import Check, unique_labels
from dlmctl.control.combined import check_all, parts_of
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
from dlmctl.text.plain_values import name_of

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
) -> dict[str, Any]:
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
        ``by_target``, if targets recur: ``success`` and ``passed`` of each, see ``by_target``.
    """
    settings = settings or Recipe()
    if settings.scorer is not None:
        pretrained = pretrained.scored_by(settings.scorer)
    nats = nats_of(pretrained, scorer)
    control = control.for_model(pretrained)
    possible = possible_targets(control, pretrained, targets, seed=seed, sampler=settings.sampler)
    figures: dict[str, Any] = {"targets": targets, "impossible": targets - len(possible)}
    checks: dict[str, dict[int, Mapping[str, Check]]] = {}
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
        checks[prefix] = dict(zip(possible, verdicts, strict=True))
        figures |= {f"{prefix}{name}": figure for name, figure in _success(verdicts, targets).items()}
        if nats is not None:
            figures[f"{prefix}lm_score"] = nats(texts)
        figures[f"{prefix}seconds_per_sample"] = result.seconds / len(possible)
    recurring = by_target(control, targets, checks)
    return figures | ({"by_target": recurring} if recurring else {})


def _success(verdicts: Sequence[Mapping[str, Check]], targets: int) -> dict[str, float]:
    """Success, share of passed texts, and if there are several labels the success of each, from verdicts by label."""
    scores = {label: sum(row[label].score for row in verdicts) / targets for label in verdicts[0]}
    passed = sum(all(check.passed for check in row.values()) for row in verdicts) / targets
    parts = {f"success_{label}": score for label, score in scores.items()} if len(scores) > 1 else {}
    return {"success": sum(scores.values()) / len(scores), "passed": passed, **parts}


def by_target(
    control: Control[Any], targets: int, checks: Mapping[str, Mapping[int, Mapping[str, Check]]]
) -> list[dict[str, Any]]:
    """How often each target of a control is met, in the order of the targets, if they recur: if there are at least two,
    with two texts each on average.

    Args:
        targets: number of targets.
        checks: the verdicts on each text, by control label, by its number, for each prefix of figures; a number that is
            missing is a failure.

    Returns:
        For each target of each part the ``control``, the ``target`` (the parameters in which the targets differ), the
        number of its ``targets``, and for each prefix its ``success`` and ``passed``.
    """
    rows: list[dict[str, Any]] = []
    parts = parts_of(control)
    for label, part in zip(unique_labels([part.name for part in parts]), parts, strict=True):
        numbers_of = _samples_of_targets(part, targets)
        if not 1 < len(numbers_of) <= targets / 2:
            continue
        for target, numbers in numbers_of.items():
            row = {"control": label, "target": json.loads(target), "targets": len(numbers)}
            for prefix, verdicts in checks.items():
                own = [verdicts[number][label] for number in numbers if number in verdicts]
                row[f"{prefix}success"] = sum(check.score for check in own) / len(numbers)
                row[f"{prefix}passed"] = sum(check.passed for check in own) / len(numbers)
            rows.append(row)
    return rows


def _samples_of_targets(control: Control[Any], targets: int) -> dict[str, list[int]]:
    """The numbers of the samples of each target, as JSON of the parameters in which the targets differ."""
    if isinstance(control, Composite):
        return {}
    dealt = [control.dealt(number).model_dump(mode="json", fallback=name_of) for number in range(targets)]
    names = dict.fromkeys(name for params in dealt for name in params)
    differing = [name for name in names if any(params.get(name) != dealt[0].get(name) for params in dealt)]
    numbers_of: dict[str, list[int]] = {}
    for number, params in enumerate(dealt):
        target = {name: params[name] for name in differing if params.get(name) is not None}
        numbers_of.setdefault(json.dumps(target), []).append(number)
    return numbers_of


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
