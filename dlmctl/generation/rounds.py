"""Rounds of drawing: draw, check, choose, and redraw what is not good enough, up to a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from dlmctl.control.check import Check
from dlmctl.diffusion.noise import Draw
from dlmctl.generation.checking import Batches, checked, checks_aside
from dlmctl.generation.distinct import LABEL, Distinct
from dlmctl.generation.ranking import needs_acceptability, ranks_by_scorer, satisfied, utilities
from dlmctl.generation.repair import at_fault, repaired, require_repairable, with_fluency
from dlmctl.generation.results import Sample
from dlmctl.generation.scoring import Scoring, load_scoring
from dlmctl.generation.trace import Trace
from dlmctl.recipe.settings import Criterion, Quota, Until
from dlmctl.sampling.draw import Drawn, Progress, draw_batches
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.walk import OnStep

# With a quota, the fewest texts drawn in a round if attempts remain: a smaller batch costs nearly as much.
MIN_DRAWS = 64


class Rounds(NamedTuple):
    """What is drawn: which samples, from which seed, how often, and which draw of each is kept.

    Attributes:
        group: maps a sample to the group that shares the attempts of a quota; all samples share them if not given.
        distinct: the record of texts used so far, where texts must differ.
        fluency: whether the final texts are scored if the model has a scorer.
        second_scorer: the language model that ``fluency`` also uses, by folder or hub name.
    """

    numbers: Sequence[int]
    seed: int
    until: Until
    candidates: int
    rank_by: Sequence[Criterion]
    quota: Quota | None = None
    group: Callable[[int], int] | None = None
    distinct: Distinct | None = None
    fluency: bool = True
    second_scorer: str | None = None


class Callbacks(NamedTuple):
    """The caller's callbacks: ``progress`` counts the steps, ``on_step`` receives each step."""

    progress: Progress | None = None
    on_step: OnStep | None = None


def draw_rounds(plan: Plan, rounds: Rounds, callbacks: Callbacks) -> list[Sample]:
    """Return the best text of each sample, after as many rounds of drawing as it takes.

    Raises:
        ModelError: texts are ranked or bounded by a scorer that is missing or cannot be read, or they are to be
            repaired and the model writes pieces of words.
        UserError: as ``draw_texts``.
    """
    if rounds.until.repair:
        require_repairable(plan.pretrained)
        rounds = rounds._replace(rank_by=with_fluency(rounds.rank_by, plan.pretrained))
    scorer_decides = rounds.until.bounds_fluency
    scorer_decides = scorer_decides or ranks_by_scorer(rounds.rank_by, rounds.candidates, rounds.until, rounds.quota)
    scoring = None
    if scorer_decides or (rounds.fluency and plan.pretrained.scorer_folder.is_dir()):
        with_acceptability = needs_acceptability(rounds.rank_by, rounds.candidates, rounds.until, rounds.quota)
        scoring = load_scoring(
            plan.pretrained, reads=with_acceptability, second=rounds.second_scorer if scorer_decides else None
        )
    drawing = _Drawing(plan, rounds, callbacks, scoring, scores_draws=scorer_decides)
    completed_rounds = 0
    while open_samples := drawing.open(completed_rounds):
        completed_rounds += 1
        drawing.round(open_samples, completed_rounds)
    best = [drawing.best[i] for i in rounds.numbers]
    return best if scoring is None or drawing.scores_draws else _scored(plan, scoring, best)


@dataclass
class _Drawing:
    """The state of the rounds.

    Attributes:
        scores_draws: whether each draw is scored when it is checked, because the choice depends on it.
        attempts: draws of each sample so far; spent: draws of each group.
    """

    plan: Plan
    rounds: Rounds
    callbacks: Callbacks
    scoring: Scoring | None
    scores_draws: bool
    best: dict[int, Sample] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    spent: Counter[int] = field(default_factory=Counter)

    def open(self, completed_rounds: int) -> list[int]:
        """The samples that still need drawing."""
        rounds = self.rounds
        if rounds.quota is None and completed_rounds == rounds.until.max_rounds:
            return []
        unfinished = [i for i in rounds.numbers if i not in self.best or not good_enough(self.best[i], rounds.until)]
        if rounds.quota is None:
            return unfinished
        attempts_left = {group: rounds.quota.attempts * size - self.spent[group] for group, size in self.sizes.items()}
        affordable: list[int] = []
        for i in unfinished:
            attempts_left[self._group(i)] -= 1
            if attempts_left[self._group(i)] >= 0:
                affordable.append(i)
        return affordable

    @cached_property
    def sizes(self) -> Counter[int]:
        """The number of samples in each group."""
        return Counter(map(self._group, self.rounds.numbers))

    def _group(self, sample: int) -> int:
        return 0 if self.rounds.group is None else self.rounds.group(sample)

    def _draws_per_sample(self, open_samples: Sequence[int]) -> int:
        """The number of texts drawn for each open sample in a round."""
        rounds, open_counts = self.rounds, Counter(map(self._group, open_samples))
        if rounds.quota is None:
            return rounds.candidates
        attempts_left = [rounds.quota.attempts * self.sizes[group] - self.spent[group] for group in open_counts]
        limit = min(attempts // open_counts[group] for attempts, group in zip(attempts_left, open_counts, strict=True))
        # Filling a batch takes at most a quarter of the attempts left, so enough remain for samples that fail again.
        shared = len(open_samples) > len(open_counts)
        batch_fill = min(MIN_DRAWS // len(open_samples), limit // 4 if shared else limit)
        return max(1, min(limit, max(rounds.candidates, batch_fill)))

    def round(self, open_samples: Sequence[int], number: int) -> None:
        """Draw more texts for each open sample, and keep its best text so far."""
        rounds, draw_count = self.rounds, self._draws_per_sample(open_samples)
        kept = {i: self.best[i] for i in open_samples if i in self.best} if rounds.until.repair else {}
        repairable = {i: text for i, text in kept.items() if self._is_repairable(text)}
        draws = [
            Draw(rounds.seed, sample, attempt)
            for sample in open_samples
            if sample not in repairable
            for attempt in range(self.attempts[sample], self.attempts[sample] + draw_count)
        ]
        draws_of: dict[int, list[Sample]] = {i: [self.best[i]] if i in self.best else [] for i in open_samples}
        if rounds.distinct is not None:
            rounds.distinct.release([self.best[i] for i in open_samples if i in self.best])
        new_batches = draw_batches(self.plan, draws, **self.callbacks._asdict()) if draws else iter(())
        repaired_batches = self._repair(repairable, number - 1, draw_count) if repairable else iter(())
        for sample in self._check(chain(new_batches, repaired_batches)):
            # For a repaired text, the walk scored only the words that were rewritten.
            draws_of[sample.index].append(replace(sample, nats=None) if sample.index in repairable else sample)
        for i, texts in draws_of.items():
            self.best[i] = replace(self._best(texts), rounds=number)
            self.attempts[i] += draw_count
            self.spent[self._group(i)] += draw_count

    def _is_repairable(self, text: Sample) -> bool:
        """Whether it is known which words to redraw: those that a check blames, or, if a text passes but is not fluent
        enough, those that the scorer finds unlikely."""
        passes = bool(text.words) and text.passed
        return bool(at_fault(text.checks)) or (self.rounds.until.bounds_fluency and passes)

    def _repair(self, texts: Mapping[int, Sample], number: int, candidates: int) -> Batches:
        return repaired(
            self.plan, texts, seed=self.rounds.seed, number=number, candidates=candidates, **self.callbacks._asdict()
        )

    def _check(self, batches: Batches) -> Iterator[Sample]:
        """Samples with their checks, in the order of their draws, so that ties rank the same however batches finish."""
        plan = self.plan
        if plan.sampler.deterministic:  # a judge may be a network, too: check each text alone
            drawn = sorted(chain.from_iterable(batches), key=lambda result: result.draw)
            parts = [checked(plan.control, iter([[draw]]), aside=False) for draw in drawn]
        else:
            device = plan.pretrained.model.embeddings.device.type
            parts = [checked(plan.control, batches, aside=checks_aside(plan.control, device))]
        for part in parts:
            samples = [_sample(draw, checks) for draw, checks in part]
            scoring = self.scoring if self.scores_draws else None
            yield from samples if scoring is None else _scored(plan, scoring, samples)

    @property
    def _draws_until_good(self) -> bool:
        """Whether samples are drawn until they are good enough: a text that is then ranks above one that is not,
        whatever ``rank_by`` says."""
        rounds = self.rounds
        bounded = rounds.until.bounds_fluency or rounds.until.max_rounds > 1
        return bounded or rounds.quota is not None or rounds.distinct is not None

    def _best(self, texts: list[Sample]) -> Sample:
        distinct = self.rounds.distinct
        if distinct is not None:
            texts = [distinct.checked(text) for text in texts]
        best = texts[0]
        if len(texts) > 1:
            is_good = [(good_enough(text, self.rounds.until),) if self._draws_until_good else () for text in texts]
            scores = utilities(
                self.rounds.rank_by,
                self.plan.pretrained,
                [text.words for text in texts],
                [text.checks for text in texts],
                [text.nats for text in texts],
                [text.fluency for text in texts],
            )
            best = texts[max(range(len(texts)), key=lambda at: (bool(texts[at].words), *is_good[at], *scores[at]))]
        if distinct is not None:
            distinct.take(best.index, best.text)
        return best


def good_enough(sample: Sample, until: Until) -> bool:
    """Whether a text ends the drawing of its sample; a repeated or empty text never does."""
    distinct_check = sample.checks.get(LABEL)
    others = {name: check for name, check in sample.checks.items() if name != LABEL}
    is_distinct = distinct_check is None or distinct_check.passed
    return is_distinct and sample.unmet is None and satisfied(others, until, sample.fluency)


def _sample(drawn: Drawn, checks: Mapping[str, Check]) -> Sample:
    return Sample(
        drawn.draw.sample,
        drawn.words,
        drawn.text,
        dict(checks),
        drawn.latent,
        problem=drawn.problem,
        nats=drawn.nats,
        trace=Trace(tuple(drawn.frames)) if drawn.frames else None,
        unmet=None if drawn.words else "the model ended the text before the first word.",
    )


def _scored(plan: Plan, scoring: Scoring, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their fluency."""
    texts, alone = [sample.words for sample in samples], plan.sampler.deterministic
    fluencies = scoring.of(texts, [sample.text for sample in samples], alone=alone)
    return [replace(sample, fluency=fluency) for sample, fluency in zip(samples, fluencies, strict=True)]
