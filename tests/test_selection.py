import json
import shutil
from collections import Counter

import pytest

from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check, mean_score
from dlmctl.errors import ModelError
from dlmctl.generation.generate import generate
from dlmctl.generation.ranking import mean_bleu, ranks_by_scorer, satisfied, utilities
from dlmctl.metrics.fluency import Fluency
from dlmctl.recipe.settings import Quota, SamplerSettings, Until
from dlmctl.text.word_counts import FILE

QUICK = SamplerSettings(steps=4)
GOOD, BAD = Check(1.0, True, ""), Check(0.4, False, "")


class Shortish(Control):
    """A control without guidance: passes texts whose first word is in a set. Counts how many texts it has seen."""

    name = "shortish"
    Params = ControlParams

    def __init__(self, wanted):
        super().__init__()
        self.wanted, self.seen = wanted, []

    def check_many(self, params, texts):
        self.seen.append(len(texts))
        return [Check(float(text[:1] == [self.wanted]), text[:1] == [self.wanted], "") for text in texts]


@pytest.mark.parametrize(
    ("least", "checks", "answer"),
    [
        ("all", {"a": GOOD, "b": GOOD}, True),
        ("all", {"a": GOOD, "b": BAD}, False),
        ("any", {"a": GOOD, "b": BAD}, True),
        ("any", {"a": BAD}, False),
        (0.7, {"a": GOOD, "b": BAD}, True),
        (0.71, {"a": GOOD, "b": BAD}, False),
        (0.95, {"a": Check(0.22, True, "")}, True),  # a passed check counts 1, however sure its judge is
        (0.95, {"a": Check(0.22, True, ""), "b": BAD}, False),
        ("all", {}, True),
        ("any", {}, True),
    ],
)
def test_satisfied(least, checks, answer):
    assert satisfied(checks, Until(satisfied=least)) is answer


@pytest.mark.parametrize(
    ("candidates", "until", "quota", "answer"),
    [
        (1, None, None, False),
        (1, Until(max_rounds=1), None, False),
        (2, None, None, True),
        (1, Until(max_rounds=2), None, True),
        (1, None, Quota(), True),
    ],
)
def test_the_scorer_chooses_only_where_several_texts_are_drawn(candidates, until, quota, answer):
    assert ranks_by_scorer(["fluency"], candidates, until, quota) is answer
    assert not ranks_by_scorer(["satisfaction"], candidates, until, quota)


def test_mean_score():
    assert mean_score({"a": GOOD, "b": BAD}) == pytest.approx(0.7)
    assert mean_score({}) == 1.0


def test_satisfaction_ranks_by_passes_then_score(pretrained):
    checks = [{"a": BAD}, {"a": GOOD}, {"a": Check(0.9, False, "")}]
    values = utilities(["satisfaction"], pretrained, [["x"]] * 3, checks)
    assert sorted(range(3), key=values.__getitem__) == [0, 2, 1]


def test_fluency_ranks_passing_texts_however_sure_the_judge_is(pretrained):
    checks = [{"a": Check(0.99, True, "")}, {"a": Check(0.6, True, "")}, {"a": Check(0.9, False, "")}]
    nats = [Fluency(3.0, "a", 5.0), Fluency(2.0, "b", 5.0), Fluency(1.0, "c", 5.0)]
    best = {}
    for criteria in (("satisfaction",), ("satisfaction", "fluency"), ("fluency", "satisfaction")):
        values = utilities(criteria, pretrained, [["x"]] * 3, checks, fluency=nats)
        best[criteria] = max(range(3), key=values.__getitem__)
    assert list(best.values()) == [0, 1, 2]


def test_mbr_prefers_the_text_most_like_the_others():
    texts = ["a b c d e f".split(), "a b c d e g".split(), "z y x w v u".split(), "a b c d h f".split()]
    scores = mean_bleu(texts)
    assert scores.index(min(scores)) == 2
    assert scores.index(max(scores)) == 0


def test_worst_word_detects_a_slip_that_the_mean_hides():
    """The criteria disagree on a long text with a doubled word and a short one without."""
    model = from_pretrained("e2e")
    slip = "The Rice Boat is a Chinese restaurant in city the centre near Express by Holiday Inn ."
    odd = "Wildwood is a cheap pub ."
    by_word, by_mean = (
        [value for (value,) in utilities([criterion], model, [slip.split(), odd.split()], [{}, {}])]
        for criterion in ("worst_word", "lm_score")
    )
    assert by_word[0] < by_word[1]
    assert by_mean[0] > by_mean[1]


def test_fluency_weighs_the_mean_and_the_worst_word(pretrained):
    nats = [Fluency(2.0, "a", 9.0), Fluency(3.0, "b", 4.0), Fluency(2.5, "c", 5.0)]
    best = {}
    for criterion in ("lm_score", "worst_word", "fluency"):
        values = utilities([criterion], pretrained, [["x"]] * 3, [{}] * 3, fluency=nats)
        best[criterion] = max(range(3), key=values.__getitem__)
    assert best == {"lm_score": 0, "worst_word": 1, "fluency": 2}


def test_fluency_includes_the_second_scorer(pretrained):
    nats = [Fluency(2.0, "a", 5.0, 9.0), Fluency(2.5, "b", 5.0, 4.0)]
    values = utilities(["fluency"], pretrained, [["x"]] * 2, [{}] * 2, fluency=nats)
    assert values[1] > values[0]


def test_a_repeated_rare_word_counts_against_a_text(model_folder, tmp_path):
    """Common words may be repeated, and so may all words without word counts."""
    texts = [text.split() for text in ("the cat saw the dog .", "a cat saw another cat .", "Cat after cat .")]
    nats = [Fluency(2.5, "saw", 5.0), Fluency(2.0, "saw", 5.0), Fluency(2.0, "saw", 5.0)]
    counts = {"the": 50_000, "a": 20_000, "cat": 90, "saw": 800, "dog": 150, ".": 60_000}
    values = {}
    for counted in (False, True):
        folder = shutil.copytree(model_folder, tmp_path / str(counted))
        if counted:
            (folder / FILE).write_text(json.dumps({"format": 1, "tokens": 1_000_000, "counts": counts}))
        values[counted] = utilities(["fluency"], from_pretrained(folder), texts, [{}] * 3, fluency=nats)
    assert values[False][0] < values[False][1] == values[False][2]
    assert values[True][0] > values[True][1] == values[True][2]


def test_lm_score_without_a_scorer_explains_how_to_train_one(pretrained):
    with pytest.raises(ModelError, match="dlmctl train scorer"):
        generate(model=pretrained, samples=1, candidates=2, rank_by=["lm_score"], sampler=QUICK)


@pytest.mark.usefixtures("float64")
def test_until_redraws_failing_samples_and_counts_rounds(pretrained):
    first = generate(model=pretrained, samples=6, sampler=QUICK)
    control = Shortish(first.samples[0].words[0])
    result = generate(control, model=pretrained, samples=6, sampler=QUICK, until=Until(max_rounds=5))
    assert [sample.index for sample in result] == list(range(6))
    assert result.samples[0].rounds == 1
    assert result.samples[0].words == first.samples[0].words
    # Each round draws only the samples that failed in the round before.
    failing = [
        sum(sample.rounds >= n or not sample.passed for sample in result) for n in range(1, len(control.seen) + 1)
    ]
    assert control.seen == failing
    assert all(sample.passed or sample.rounds == 5 for sample in result)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ending", [{"until": Until(max_rounds=2)}, {"quota": Quota(attempts=8)}])
def test_passing_texts_rank_above_failing_ones_whatever_ranks(pretrained, ending):
    settings = {"model": pretrained, "samples": 1, "seed": 1, "sampler": QUICK, "candidates": 4, "rank_by": ["mbr"]}
    seen, control = [], Shortish(None)
    control.check_many = lambda params, texts: seen.extend(texts) or [BAD for _ in texts]
    likest = generate(control, **settings)[0].words
    wanted = next(words for words in seen if words != likest)
    control.check_many = lambda params, texts: [GOOD if words == wanted else BAD for words in texts]
    assert not generate(control, **settings)[0].passed
    assert generate(control, **settings, **ending)[0].passed


@pytest.mark.usefixtures("float64")
def test_the_best_candidate_is_kept_whatever_the_batch_size(pretrained):
    word = generate(model=pretrained, samples=1, sampler=QUICK).samples[0].words[0]
    results = [
        generate(Shortish(word), model=pretrained, samples=4, candidates=5, sampler=QUICK, batch_size=size)
        for size in (1, 64)
    ]
    assert [s.words for s in results[0]] == [s.words for s in results[1]]
    alone = generate(Shortish(word), model=pretrained, samples=4, sampler=QUICK)
    assert results[0].success >= alone.success


def test_a_failing_sample_gets_the_attempts_that_others_of_a_quota_did_not_need(pretrained):
    """Two of three samples pass at once, the third at its tenth text."""
    control, drawn = Shortish(None), Counter()

    def verdicts(samples, texts, written):
        drawn.update(samples)
        return [GOOD if sample < 2 or drawn[2] >= 10 else BAD for sample in samples]

    control.verdicts = verdicts
    result = generate(control, model=pretrained, samples=3, sampler=QUICK, quota=Quota(attempts=8))
    assert result.success == 1.0
    assert drawn[0] == drawn[1] == 2
    assert drawn.total() <= 24
