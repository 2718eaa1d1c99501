"""Rounds of drawing: draw, check, choose, and draw again what is not good enough, until it is or a bound is reached."""

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
from dlmctl.generation.ranking import asks_reader, ranks_by_scorer, satisfied, utilities
from dlmctl.generation.repair import at_fault, repaired, require_repairable, with_fluency
from dlmctl.generation.results import Sample
from dlmctl.generation.scoring import Scoring, load_scoring
from dlmctl.generation.trace import Trace
from dlmctl.recipe.settings import Criterion, Quota, Until
from dlmctl.sampling.draw import Drawn, Progress, draw_batches
from dlmctl.sampling.plan import Plan
from dlmctl.sampling.walk import OnStep

# With a quota, texts drawn in a round at least, as far as the attempts go: a batch of fewer costs nearly as much.
FEWEST_DRAWN = 64


class Rounds(NamedTuple):
    """What is drawn: which samples, from which seed, how often, and which draw of each is kept.

    Attributes:
        group: of a sample, those with which it shares the attempts of a quota; all share them if not given.
        distinct: what tells whether texts differ, where they are to.
        fluency: whether the texts kept are scored, wherever the model has a scorer.
        second_scorer: the language model that ``fluency`` asks too, by folder or hub name.
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


class Watching(NamedTuple):
    """Who looks on: ``progress`` at the steps, ``on_step`` at what happens in them."""

    progress: Progress | None = None
    on_step: OnStep | None = None


def draw_rounds(plan: Plan, asked: Rounds, watching: Watching) -> list[Sample]:
    """The best text of each sample, after as many rounds of drawing as it takes.

    Raises:
        ModelError: they are ranked or bounded by a scorer that the model does not have, or that cannot be read, or they
            are to be repaired and the model writes pieces of words.
        UserError: as ``draw_texts``.
    """
    if asked.until.repair:
        require_repairable(plan.pretrained)
        asked = asked._replace(rank_by=with_fluency(asked.rank_by, plan.pretrained))
    chooses = asked.until.bounds_fluency
    chooses = chooses or ranks_by_scorer(asked.rank_by, asked.candidates, asked.until, asked.quota)
    scoring = None
    if chooses or (asked.fluency and (plan.pretrained.folder / "scorer").is_dir()):
        reads = asks_reader(asked.rank_by, asked.candidates, asked.until, asked.quota)
        scoring = load_scoring(plan.pretrained, reads=reads, second=asked.second_scorer if chooses else None)
    drawing = _Drawing(plan, asked, watching, scoring, at_once=chooses)
    number = 0
    while open_samples := drawing.open(number):
        number += 1
        drawing.round(open_samples, number)
    best = [drawing.best[i] for i in asked.numbers]
    return best if scoring is None or drawing.at_once else _scored(plan, scoring, best)


@dataclass
class _Drawing:
    """The state of the rounds.

    Attributes:
        at_once: whether each draw is scored when it is checked, as the choice depends on it.
        attempts: draws of each sample so far; spent: of each group.
    """

    plan: Plan
    asked: Rounds
    watching: Watching
    scoring: Scoring | None
    at_once: bool
    best: dict[int, Sample] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    spent: Counter[int] = field(default_factory=Counter)

    def open(self, number: int) -> list[int]:
        """The samples that are to be drawn after so many rounds."""
        asked = self.asked
        if asked.quota is None and number == asked.until.max_rounds:
            return []
        found = [i for i in asked.numbers if i not in self.best or not good_enough(self.best[i], asked.until)]
        if asked.quota is None:
            return found
        left = {group: asked.quota.attempts * size - self.spent[group] for group, size in self.sizes.items()}
        kept: list[int] = []
        for i in found:
            left[self._group(i)] -= 1
            if left[self._group(i)] >= 0:
                kept.append(i)
        return kept

    @cached_property
    def sizes(self) -> Counter[int]:
        """How many samples each group has."""
        return Counter(map(self._group, self.asked.numbers))

    def _group(self, sample: int) -> int:
        return 0 if self.asked.group is None else self.asked.group(sample)

    def _each(self, open_samples: Sequence[int]) -> int:
        """How many texts are drawn for each sample of a round."""
        asked, wanted = self.asked, Counter(map(self._group, open_samples))
        if asked.quota is None:
            return asked.candidates
        left = [asked.quota.attempts * self.sizes[group] - self.spent[group] for group in wanted]
        most = min(some // wanted[group] for some, group in zip(left, wanted, strict=True))
        # What only fills a batch is a quarter of what is left: a sample that fails then has what others did not need.
        shared = len(open_samples) > len(wanted)
        filled = min(FEWEST_DRAWN // len(open_samples), most // 4 if shared else most)
        return max(1, min(most, max(asked.candidates, filled)))

    def round(self, open_samples: Sequence[int], number: int) -> None:
        """Draw each of the samples, and keep the best text that it has now."""
        asked, each = self.asked, self._each(open_samples)
        kept = {i: self.best[i] for i in open_samples if i in self.best} if asked.until.repair else {}
        blamed = {i: text for i, text in kept.items() if self._can_mend(text)}
        draws = [
            Draw(asked.seed, sample, attempt)
            for sample in open_samples
            if sample not in blamed
            for attempt in range(self.attempts[sample], self.attempts[sample] + each)
        ]
        found: dict[int, list[Sample]] = {i: [self.best[i]] if i in self.best else [] for i in open_samples}
        if asked.distinct is not None:
            asked.distinct.release([self.best[i] for i in open_samples if i in self.best])
        drawn = draw_batches(self.plan, draws, **self.watching._asdict()) if draws else iter(())
        mended = self._mended(blamed, number - 1, each) if blamed else iter(())
        for sample in self._checked(chain(drawn, mended)):
            # Of a mended text the walk has seen the words that were written again only.
            found[sample.index].append(replace(sample, nats=None) if sample.index in blamed else sample)
        for i, texts in found.items():
            self.best[i] = replace(self._best(texts), rounds=number)
            self.attempts[i] += each
            self.spent[self._group(i)] += each

    def _can_mend(self, text: Sample) -> bool:
        """Whether it is known which words to draw again: those that a check blames, or, of a text that only is not
        fluent enough, those that the scorer finds unlikely."""
        passes = bool(text.words) and text.passed
        return bool(at_fault(text.checks)) or (self.asked.until.bounds_fluency and passes)

    def _mended(self, blamed: Mapping[int, Sample], number: int, each: int) -> Batches:
        return repaired(
            self.plan, blamed, seed=self.asked.seed, number=number, candidates=each, **self.watching._asdict()
        )

    def _checked(self, batches: Batches) -> Iterator[Sample]:
        """Samples with their checks, in the order of their draws (which the ranking of equals must not depend on)."""
        plan = self.plan
        if plan.sampler.deterministic:  # a judge may be a network too: each text is checked alone
            drawn = sorted(chain.from_iterable(batches), key=lambda result: result.draw)
            parts = [checked(plan.control, iter([[one]]), aside=False) for one in drawn]
        else:
            device = plan.pretrained.model.embeddings.device.type
            parts = [checked(plan.control, batches, aside=checks_aside(plan.control, device))]
        for part in parts:
            made = [_sample(result, one) for result, one in part]
            at_once = self.scoring if self.at_once else None
            yield from made if at_once is None else _scored(plan, at_once, made)

    @property
    def _goes_on(self) -> bool:
        """Whether a sample is drawn until it is good enough: what ends the drawing is then better than what does not,
        whatever ``rank_by`` says."""
        asked = self.asked
        bounded = asked.until.bounds_fluency or asked.until.max_rounds > 1
        return bounded or asked.quota is not None or asked.distinct is not None

    def _best(self, texts: list[Sample]) -> Sample:
        distinct = self.asked.distinct
        if distinct is not None:
            texts = [distinct.checked(text) for text in texts]
        best = texts[0]
        if len(texts) > 1:
            enough = [(good_enough(text, self.asked.until),) if self._goes_on else () for text in texts]
            values = utilities(
                self.asked.rank_by,
                self.plan.pretrained,
                [text.words for text in texts],
                [text.checks for text in texts],
                [text.nats for text in texts],
                [text.fluency for text in texts],
            )
            best = texts[max(range(len(texts)), key=lambda at: (*enough[at], *values[at]))]
        if distinct is not None:
            distinct.take(best.index, best.text)
        return best


def good_enough(sample: Sample, until: Until) -> bool:
    """Whether a text ends the drawing of its sample: a text that is no new one never does."""
    new = sample.checks.get(LABEL)
    others = {name: check for name, check in sample.checks.items() if name != LABEL}
    return (new is None or new.passed) and satisfied(others, until, sample.fluency)


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
    )


def _scored(plan: Plan, scoring: Scoring, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with their fluency."""
    texts, alone = [sample.words for sample in samples], plan.sampler.deterministic
    found = scoring.of(texts, [sample.text for sample in samples], alone=alone)
    return [replace(sample, fluency=one) for sample, one in zip(samples, found, strict=True)]
