"""Control success and fluency on a list of targets, guided and unguided side by side."""

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
from dlmctl.sampling.possible_draws import impossible


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
    """Draw one sample for each target and check it by the control's own, independent check.

    Args:
        control: made with ``each`` from one set of parameters per target, or ``All`` of such.
        targets: how many.
        settings: sampler, guidance, ``until``, ``candidates`` and ``rank_by`` of the guided samples; the sampler of
            the unguided ones too.

    Returns:
        ``targets``; ``impossible``, how many of them this model's control cannot be asked for, which count as
        failures; ``success`` (mean score: for POS the share of words with their tag, as the paper counts), ``passed``
        (share of texts that pass whole), ``lm_score`` (see ``nats_of``, where there is a scorer),
        ``seconds_per_sample``; the same with ``unguided_`` for free samples of the same seed: what chance achieves.
        For a composition also the success of each part.
    """
    nats = nats_of(pretrained, scorer)
    control = control.for_model(pretrained)
    settings = settings or Recipe()
    asked = possible_targets(control, pretrained, targets, seed=seed, sampler=settings.sampler)
    figures: dict[str, float] = {"targets": targets, "impossible": targets - len(asked)}
    for prefix, used in (("", control), ("unguided_", None)):
        result = generate(
            used,
            model=pretrained,
            samples=asked,
            seed=seed,
            sampler=settings.sampler,
            guidance=settings.guidance,
            until=settings.until if used else None,
            candidates=settings.candidates if used else 1,
            rank_by=settings.rank_by,
            second_scorer=settings.second_scorer,
            company=UNSCORED,
            progress=progress,
        )
        texts = [sample.words for sample in result]
        verdicts = check_all(control, asked, texts, [sample.text for sample in result])
        scores = {label: sum(row[label].score for row in verdicts) / targets for label in verdicts[0]}
        figures[f"{prefix}success"] = sum(scores.values()) / len(scores)
        figures[f"{prefix}passed"] = sum(all(check.passed for check in row.values()) for row in verdicts) / targets
        if len(scores) > 1:
            figures |= {f"{prefix}success_{label}": score for label, score in scores.items()}
        if nats is not None:
            figures[f"{prefix}lm_score"] = nats(texts)
        figures[f"{prefix}seconds_per_sample"] = result.seconds / len(asked)
    return figures


def possible_targets(
    control: Control[Any],
    pretrained: Pretrained,
    targets: int,
    *,
    seed: int = 0,
    sampler: SamplerSettings | None = None,
) -> list[int]:
    """The targets of an attached control that can be asked of this model, by number.

    Args:
        sampler: what they are drawn with; over tokens it says how long a text may be.

    Raises:
        RecipeError: why the first target cannot, where none can.
    """
    plan = Plan(pretrained, control, sampler or SamplerSettings(), Guidance(), 1)
    refused = impossible(plan, [Draw(seed, target) for target in range(targets)])
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
    """A control with one set of parameters for each line, and how many there are.

    Args:
        path: JSON lines; the control's own ``from_target`` says what parameters a line asks for.
        params: parameters laid over those of every target.
        judge: of a control with a parameter of this name: what reads the targets off sentences, and checks.

    Raises:
        UserError: the control cannot take its targets from such lines.
        DataError: the file is missing, empty, or a line is no target of this control.
    """
    kind = find_control(name)
    if judge is not None and "judge" not in kind.Params.model_fields:
        raise UserError(f"the control {name!r} is checked by no tagger or parser.", where="--judge")
    judged = {} if judge is None else {"judge": judge}
    targets = []
    for number, value in islice(json_lines(path), limit):
        try:
            record = _without_structure(value)
            target = kind.from_target({**record, **judged} if isinstance(record, dict) else record)
            targets.append(kind.Params.model_validate({**target.model_dump(), **judged, **(params or {})}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"is no target of {name}: {_reason(error)}.", where=f"{path}:{number}") from None
    if not targets:
        raise DataError("holds no targets.", where=str(path))
    return kind.each(targets), len(targets)


def _without_structure(target: Any) -> Any:
    """A target without the START, END and line break that Diffusion-LM's own files have around the words.

    ``words_`` of such a file is ``words``; tags of START and END go with their words, and spans move with them.
    """
    if not isinstance(target, dict) or not isinstance(target.get("words_"), list):
        return target
    words = target["words_"]
    kept = [at for at, word in enumerate(words) if word not in ("START", "END", "\n")]
    place = {at: new for new, at in enumerate(kept)}
    found = {**target, "words": [words[at] for at in kept]}
    del found["words_"]
    if isinstance(target.get("pos"), list):
        found["pos"] = [tag for tag in target["pos"] if tag not in ("START", "END")]
    if isinstance(target.get("spans"), list):
        found["spans"] = [
            [place[start], place[end], label]
            for start, end, label in target["spans"]
            if start in place and end in place
        ]
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].removeprefix('Value error, ')}"
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
