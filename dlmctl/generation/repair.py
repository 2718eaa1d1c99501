"""Repair: of a text that fails only the words at fault are drawn again, the rest stays (``until.repair``).

What a check blames, with the words beside it, is noised again. Every other round the word that the scorer finds least
likely comes along, so that a text which is stuck between its checks is opened at another place too. A text that passes
them and is not fluent enough is opened at its least likely word, in the next round at the second least likely one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import All
from dlmctl.control.check import Check
from dlmctl.control.kept_words import KeptParams, KeptWords
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
# So many of the least likely words of a text have their turn.
TURNS = 3


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
    """Proposals for texts whose checks name words at fault, or which a scorer finds not fluent enough.

    Where a step writes one word, a text gets as many as can be had in the steps of drawing it anew.

    Args:
        best: the texts by sample.
        seed: of the run; number: of the repair, from 1 on; candidates: texts that a round draws for each sample.

    Raises:
        UserError: as ``draw_texts``.
    """
    unlikely = {i: text for i, text in best.items() if number % 2 == 0 or not at_fault(text.checks)}
    worst = _worst_words(plan.pretrained, unlikely, number)
    opened = {i: opened_places(text, worst.get(i)) for i, text in best.items()}
    kept = {i: KeptParams.around(text.words, opened[i]) for i, text in best.items()}
    one_a_step = isinstance(plan.pretrained.model, MaskedLM) and plan.sampler.steps is None
    count = {i: min(MOST_PROPOSALS, len(text.words) // len(opened[i])) if one_a_step else 1 for i, text in best.items()}
    draws = [Draw(seed, i, number * STRIDE + at) for i in best for at in range(candidates * count[i])]
    control = KeptWords.by_sample(kept)
    held = plan._replace(control=control if plan.control is None else All([plan.control, control]))
    return draw_batches(held, draws, progress=progress, on_step=on_step)


def require_repairable(pretrained: Pretrained) -> None:
    """Check that words of a model's texts can stay where others are drawn again.

    Raises:
        ModelError: the model writes pieces of words.
    """
    needs_words(pretrained, "what `until.repair` draws again", "Leave repair out: such texts are drawn anew.")


def with_fluency(rank_by: Sequence[Criterion], pretrained: Pretrained) -> list[Criterion]:
    """What makes a repaired text the best: of two that are equal the more fluent one, where there is a scorer."""
    known = not {"acceptability", "fluency", "lm_score"}.isdisjoint(rank_by) or scorer_of(pretrained.folder) is None
    return [*rank_by] if known else [*rank_by, "lm_score"]


def at_fault(checks: Mapping[str, Check]) -> set[int]:
    """The words that failed checks blame, from 0."""
    return {place for check in checks.values() if not check.passed for place in check.where}


def opened_places(text: Sample, worst: int | None = None) -> list[int]:
    """The places to be drawn again: the words at fault, the one found ``worst``, and those beside them."""
    blamed = at_fault(text.checks) | (set() if worst is None else {worst})
    beside = {place + step for place in blamed for step in (-1, 0, 1)}
    return [place for place in sorted(beside) if 0 <= place < len(text.words)]


def _worst_words(pretrained: Pretrained, texts: Mapping[int, Sample], number: int) -> dict[int, int]:
    """The ``unlikely_place`` of each text; empty where there is no scorer."""
    judge = scorer_of(pretrained.folder)
    if judge is None:
        return {}
    rows = token_nats(*judge, [text.words for text in texts.values()])
    return {i: unlikely_place(text, row, number) for (i, text), row in zip(texts.items(), rows, strict=True)}


def unlikely_place(text: Sample, nats: Sequence[float], number: int) -> int:
    """Of a text's words with these ``nats``, END behind them, the place of the least likely one; where no check blames
    any, by the ``number`` of the repair also the second and the third least likely one's."""
    ranked = sorted(range(len(nats) - 1), key=nats.__getitem__, reverse=True)  # END is no word
    return ranked[0 if at_fault(text.checks) else (number - 1) % min(TURNS, len(ranked))]
