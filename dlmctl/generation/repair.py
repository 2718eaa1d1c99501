"""Repair: of a text that fails only the words at fault are drawn again, the rest stays (``until.repair``).

What a check blames, with the words beside it, is noised again. Every other round the word that the scorer finds least
likely comes along, so that a text which is stuck between its checks is opened at another place too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import All, Check
from dlmctl.control.kept import Kept, KeptParams
from dlmctl.control.whole_words import needs_words
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.diffusion.noise import Draw
from dlmctl.generation.results import Sample
from dlmctl.metrics.lm_score import scorer_of, token_nats
from dlmctl.recipe.settings import Criterion
from dlmctl.sampling.draw import Drawn, Progress, draw_batches
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.walk import OnStep

# Most proposals of one text in a round, and the distance between the attempts of two rounds.
MOST_PROPOSALS, STRIDE = 16, 1 << 16


def repaired(
    plan: Plan,
    best: Mapping[int, Sample],
    *,
    seed: int,
    number: int,
    candidates: int,
    progress: Progress | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Sequence[Drawn]]:
    """Proposals for texts whose checks name words at fault.

    Where a step writes one word, a text gets as many as can be had in the steps of drawing it anew.

    Args:
        best: the texts by sample, each with words at fault.
        seed: of the run; number: of the repair, from 1 on; candidates: texts that a round draws for each sample.

    Raises:
        ModelError: the model writes pieces of words, of which none can stay.
        UserError: as ``draw_texts``.
    """
    needs_words(plan.pretrained, "until.repair")
    worst = _worst_words(plan.pretrained, best) if number % 2 == 0 else {}
    opened = {i: opened_places(text, worst.get(i)) for i, text in best.items()}
    kept = {i: kept_words(text.words, opened[i]) for i, text in best.items()}
    one_a_step = isinstance(plan.pretrained.model, MaskedLM) and plan.sampler.steps is None
    count = {i: min(MOST_PROPOSALS, len(text.words) // len(opened[i])) if one_a_step else 1 for i, text in best.items()}
    draws = [Draw(seed, i, number * STRIDE + at) for i in best for at in range(candidates * count[i])]
    control = Kept.by_sample(kept)
    held = plan._replace(control=control if plan.control is None else All([plan.control, control]))
    return draw_batches(held, draws, progress=progress, on_step=on_step)


def with_fluency(rank_by: Sequence[Criterion], pretrained: Pretrained) -> list[Criterion]:
    """What makes a repaired text the best: of two that are equal the more fluent one, where there is a scorer."""
    known = "lm_score" in rank_by or scorer_of(pretrained.folder) is None
    return [*rank_by] if known else [*rank_by, "lm_score"]


def at_fault(checks: Mapping[str, Check]) -> set[int]:
    """The words that failed checks blame, from 0."""
    return {place for check in checks.values() if not check.passed for place in check.where}


def opened_places(text: Sample, worst: int | None = None) -> list[int]:
    """The places to be drawn again: the words at fault, the one found ``worst``, and those beside them."""
    blamed = at_fault(text.checks) | (set() if worst is None else {worst})
    beside = {place + step for place in blamed for step in (-1, 0, 1)}
    return [place for place in sorted(beside) if 0 <= place < len(text.words)]


def kept_words(words: Sequence[str], opened: Sequence[int]) -> KeptParams:
    """The words of a text without those that are drawn again."""
    return KeptParams(words=[None if place in opened else word for place, word in enumerate(words)])


def _worst_words(pretrained: Pretrained, texts: Mapping[int, Sample]) -> dict[int, int]:
    """The place of the word of each text that the scorer finds least likely; empty where there is no scorer."""
    judge = scorer_of(pretrained.folder)
    if judge is None:
        return {}
    rows = token_nats(*judge, [text.words for text in texts.values()])
    # Without END, which is no word.
    return {i: max(range(len(row) - 1), key=row.__getitem__) for i, row in zip(texts, rows, strict=True)}
