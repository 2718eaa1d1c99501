import math

import pytest
import torch

from controls import Avoid, Contains, Infill, Length
from controls.contains import ContainsParams
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.control import warn_once
from dlmctl.diffusion.layout import Layout
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.text.spelling import split_words
from tests.conftest import batch_of, state_of

QUICK = SamplerSettings(steps=4)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("method", ["logits", "latent", "langevin"])
def test_the_words_are_there_whatever_samples(pretrained, name, method):
    control = Contains("grey cats", "river", "near")
    sampler, guidance = SamplerSettings(name=name, steps=4), Guidance(method=method)
    assert generate(control, model=pretrained, samples=12, sampler=sampler, guidance=guidance).success == 1.0


@pytest.mark.parametrize("last", [0.2, 0.95])
def test_even_if_the_last_step_comes_early(pretrained, last):
    sampler = SamplerSettings(steps=2, last=last, rounding="l2")
    assert generate(Contains("grey cats"), model=pretrained, samples=12, sampler=sampler).success == 1.0


def test_words_fill_a_text_to_the_brim(pretrained):
    control = Contains("grey cats", "two", "old bridge", "river") & Length(6)
    result = generate(control, model=pretrained, samples=12, sampler=QUICK)
    assert result.success == 1.0


@pytest.mark.usefixtures("float64")
def test_each_sample_its_own_words_whatever_the_batch(pretrained):
    wanted = [["river"], ["grey cats", "bread"], ["old"]]
    control = Contains.each([ContainsParams(words=words) for words in wanted])
    runs = [generate(control, model=pretrained, samples=6, sampler=QUICK, batch_size=size) for size in (1, 6)]
    assert [sample.words for sample in runs[0]] == [sample.words for sample in runs[1]]
    assert runs[0].success == 1.0


def test_words_of_a_template_count(pretrained):
    control = Infill("the old ___{1,6}") & Contains("old", "river")
    assert generate(control, model=pretrained, samples=6, sampler=QUICK).success == 1.0


def test_two_controls_share_the_text(pretrained):
    control = Contains("grey cats") & Contains("old bridge") & Length(4)
    assert generate(control, model=pretrained, samples=6).success == 1.0
    roomy = Contains("grey cats") & Contains("old bridge") & Length(12)
    assert generate(roomy, model=pretrained, samples=6, sampler=QUICK).success == 1.0


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (Contains("rivr"), r"contains: the word 'rivr' .* Did you mean 'river'\?"),
        (Contains("rivér"), r"the word 'rivér' .* Did you mean 'river'\?"),
        (Contains("brigde", "rivr", "qqqq"), r"the words .*'rivr'.* are not among .*'river' for 'rivr'"),
        (Contains("brigde", "rivr", "qqqq", "zzzz"), "the words 'brigde', 'rivr', 'qqqq' and 1 more are not among"),
        (Contains("old bridge", "river", "cats") & Length(3), "at least 4 words, another at most 3"),
        (Contains(*["old bridge " * 16]), "32 words, but the model holds at most 30"),
        (Contains("river") & Avoid("river"), "no text that contains 'river'"),
        (Avoid("grey cats") & Contains("two grey cats"), "no text that contains 'two grey cats'"),
        (Contains("two grey cats") & Avoid("grey cats"), "no text that contains 'two grey cats'"),
        (Contains("river", "cats") & Infill("the old ___{0,1}"), "no text"),
        (Contains("grey cats") & Infill("___ old ___"), "no text"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(pretrained, control, message):
    steps = []
    with pytest.raises(RecipeError, match=message):
        generate(control, model=pretrained, samples=4, sampler=QUICK, on_step=steps.append)
    assert not steps


@pytest.mark.parametrize(
    ("phrases", "fewest"),
    [
        (["the old", "old bridge"], 3),
        (["a b", "b a"], 3),
        (["a b c", "b c d", "c d e"], 5),
        (["a b c", "b c d"], 4),
        (["a a", "a b"], 3),
        (["a b", "c d"], 4),
        (["a", "b"], 2),
    ],
)
def test_phrases_may_overlap(phrases, fewest):
    control = Contains(*phrases)
    assert control.range_of(0)[0] == fewest


def test_a_text_is_as_short_as_its_phrases_overlap(pretrained):
    drawn = generate(Contains("the old", "old bridge") & Length(3), model=pretrained, samples=2, sampler=QUICK)
    assert [one.words for one in drawn] == [["the", "old", "bridge"]] * 2


def test_a_phrase_that_another_holds_is_not_asked_for_twice():
    control = Contains("cats", "two grey cats", "cats", "old")
    assert control.phrases(control.dealt(0), split_words) == [
        ["two", "grey", "cats"],
        ["old"],
    ]


def test_the_check_wants_whole_words_in_their_case():
    control = Contains("grey cats", "Anna")
    checks = control.verdicts(
        range(4), [["Anna", "has", "grey", "cats"], ["grey", "old", "cats", "Anna"], ["anna", "grey", "cats"], []]
    )
    assert [check.score for check in checks] == [1.0, 0.5, 0.5, 0.0]
    assert [check.passed for check in checks] == [True, False, False, False]
    assert checks[1].why == "without 'grey cats'"


@pytest.mark.parametrize("words", [[], [""], ["river", " "], " ", 3])
def test_words_must_be_given(words):
    with pytest.raises(UserError):
        Contains(words=words)


def test_from_words_takes_the_two_longest():
    assert Contains.from_words([["a", "noisy", "garden", "hides"]])[0].words == ["garden", "noisy"]


def energy(pretrained, control, probs):
    prepared = control.ready(batch_of(pretrained, len(probs), Layout(probs.shape[1], probs.shape[1] - 2)))
    return prepared.energy(state_of(pretrained, probs, probs.clamp(min=1e-20).log))


def test_the_energy_is_minus_log_p_that_the_word_occurs(pretrained):
    """For several phrases together, tests/automata compares it with enumeration."""
    probs = (3 * torch.randn(2, 8, len(pretrained.tokenizer))).softmax(-1)
    energies = energy(pretrained, Contains("river"), probs)
    (river,) = pretrained.tokenizer.encode(["river"])[1:-1]
    for row in range(2):
        words = [probs[row, place, 4:].sum().item() for place in range(1, 7)]
        others = [mass - probs[row, place, river].item() for place, mass in enumerate(words, start=1)]
        assert energies[row].item() == pytest.approx(-math.log(math.prod(words) - math.prod(others)), rel=1e-3)


@pytest.mark.parametrize("p", [0.0, 1e-20, 1e-4, 1.0])
def test_the_energy_has_a_finite_gradient_however_likely_the_words(pretrained, p):
    (river,) = pretrained.tokenizer.encode(["river"])[1:-1]
    probs = torch.full((1, 8, len(pretrained.tokenizer)), (1 - p) / (len(pretrained.tokenizer) - 1))
    probs[..., river] = p
    probs.requires_grad_()
    value = energy(pretrained, Contains("river"), probs)
    value.sum().backward()
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(probs.grad).all())


def test_early_on_a_word_is_spread_over_the_places_it_can_stand_at(pretrained):
    prepared = Contains("river").ready(batch_of(pretrained, 1, Layout(8, 5)))
    logits = torch.randn(1, 8, len(pretrained.tokenizer))
    logits[..., :4] = -torch.inf  # START, END, UNK and PAD are none of the words
    (river,) = pretrained.tokenizer.encode(["river"])[1:-1]
    chances = prepared.constrain(logits, torch.ones(1)).softmax(-1)[0, 1:6, river]
    before = logits.softmax(-1)[0, 1:6, river]
    # Given that it stands somewhere, its chances add up to one place at least, and the best place stays the best.
    assert chances.sum().item() >= 1 - 1e-5
    assert chances.argmax() == before.argmax()
    assert chances.max() > before.max()
    assert prepared.constrain(logits, torch.zeros(1)).argmax(-1)[0, 1:6].tolist().count(river) >= 1


def test_thirty_words_take_no_longer_than_they_must(pretrained):
    """A set of thirty words in any order has two to the power of thirty states; one order of them is enough."""
    words = pretrained.tokenizer.words(range(4, len(pretrained.tokenizer)))
    result = generate(Contains(*words) & Length(26), model=pretrained, samples=2, sampler=QUICK)
    assert result.success == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["Kitchen", "green"],
            "contains: 'Kitchen' has a capital, as at the start of a sentence; 'kitchen' is 21",
        ),
        (["Kitchen", "Water", "May"], "contains: 'Kitchen', like 'Water', has a capital"),
        (["Green", "May", "The", "TV", "Kitchen table"], None),
    ],
)
def test_words_that_are_seldom_capitalised_are_pointed_out(words, said, caplog):
    warn_once._warn.cache_clear()
    Contains(words).attach(from_pretrained("everyday"))
    assert [record.getMessage().removeprefix("dlmctl: ")[: len(said or "")] for record in caplog.records] == (
        [said] if said else []
    )
