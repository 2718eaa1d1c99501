"""Repair: redraw only the words at fault in a text that fails, and keep the rest (``until.repair``).

The words that a check blames are noised again together with their neighbours. Every other round adds the word that the
scorer finds least likely, so that a text that is stuck between its checks is opened at another place too. A text that
passes its checks but is not fluent enough is opened at its least likely word, in the next round at its second least
likely word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dlmctl.annotators.reader import text_scorer
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import All
from dlmctl.control.check import Check
from dlmctl.control.kept_words import KeptParams, KeptWords
from dlmctl.control.whole_words import needs_words
from dlmctl.diffusion.masked import MaskedLM
from dlmctl.diffusion.noise import Draw
from dlmctl.generation.results import Sample
from dlmctl.metrics.fluency import nats_of_words
from dlmctl.recipe.settings import Criterion
from dlmctl.sampling.draw import Drawn, Progress, draw_batches
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.walk import OnStep

# Most proposals for a text in a round, and the offset between the attempt numbers of two rounds.
MOST_PROPOSALS, ATTEMPT_STRIDE = 16, 1 << 16
# How many of a text's least likely words take turns.
WORST_WORD_TURNS = 3


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
    """Draw proposals for texts whose checks name words at fault, or that a scorer finds not fluent enough.

    If a step writes one word, a text gets as many proposals as fit into the steps of drawing it anew.

    Args:
        best: the texts by sample.
        seed: of the run; number: of the repair, from 1; candidates: texts that a round draws for each sample.

    Raises:
        UserError: as ``draw_texts``.
    """
    scored_texts = {i: text for i, text in best.items() if number % 2 == 0 or not at_fault(text.checks)}
    worst_places = _worst_words(plan.pretrained, scored_texts, number)
    opened = {i: opened_places(text, worst_places.get(i)) for i, text in best.items()}
    kept_params = {i: KeptParams.around(text.words, opened[i]) for i, text in best.items()}
    writes_one_word_a_step = isinstance(plan.pretrained.model, MaskedLM) and plan.sampler.steps is None
    proposal_counts = {
        i: min(MOST_PROPOSALS, len(text.words) // len(opened[i])) if writes_one_word_a_step else 1
        for i, text in best.items()
    }
    draws = [
        Draw(seed, i, number * ATTEMPT_STRIDE + attempt)
        for i in best
        for attempt in range(candidates * proposal_counts[i])
    ]
    control = KeptWords.by_sample(kept_params)
    repair_plan = plan._replace(control=control if plan.control is None else All([plan.control, control]))
    return draw_batches(repair_plan, draws, progress=progress, on_step=on_step)


def require_repairable(pretrained: Pretrained) -> None:
    """Check that single words of a model's texts can be redrawn.

    Raises:
        ModelError: the model writes pieces of words.
    """
    needs_words(pretrained, "what `until.repair` draws again", "Leave repair out: such texts are drawn anew.")


def with_fluency(rank_by: Sequence[Criterion], pretrained: Pretrained) -> list[Criterion]:
    """The criteria for repaired texts: ``rank_by``, with ties broken by ``lm_score`` if there is a scorer."""
    is_covered = not {"acceptability", "fluency", "lm_score"}.isdisjoint(rank_by) or text_scorer(pretrained) is None
    return [*rank_by] if is_covered else [*rank_by, "lm_score"]


def at_fault(checks: Mapping[str, Check]) -> set[int]:
    """The places of the words that failed checks blame, from 0."""
    return {place for check in checks.values() if not check.passed for place in check.where}


def opened_places(text: Sample, worst: int | None = None) -> list[int]:
    """The places to redraw: the words at fault, the one at ``worst``, and their neighbours."""
    centres = at_fault(text.checks) | (set() if worst is None else {worst})
    opened = {place + step for place in centres for step in (-1, 0, 1)}
    return [place for place in sorted(opened) if 0 <= place < len(text.words)]


def _worst_words(pretrained: Pretrained, texts: Mapping[int, Sample], number: int) -> dict[int, int]:
    """The ``unlikely_place`` of each text; empty if there is no scorer."""
    reader = text_scorer(pretrained)
    if reader is None:
        return {}
    rows = nats_of_words(reader, [text.words for text in texts.values()], [text.text for text in texts.values()])
    pairs = zip(texts.items(), rows, strict=True)
    return {i: unlikely_place(text, [nats or 0.0 for nats in row], number) for (i, text), row in pairs if row}


def unlikely_place(text: Sample, nats: Sequence[float], number: int) -> int:
    """The place of a text's least likely word; if no check blames a word, the repairs take turns among the three least
    likely ones.

    Args:
        nats: of each word, and of END after them; number: of the repair, from 1.
    """
    ranked = sorted(range(len(nats) - 1), key=nats.__getitem__, reverse=True)  # without END
    return ranked[0 if at_fault(text.checks) else (number - 1) % min(WORST_WORD_TURNS, len(ranked))]
