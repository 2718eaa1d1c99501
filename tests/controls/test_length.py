import math

import pytest
import torch
from pydantic import ValidationError

from controls import Length
from controls.length import LengthParams
from dlmctl.diffusion.layout import Layout
from dlmctl.errors import RecipeError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from tests.conftest import batch_of, state_of

QUICK = SamplerSettings(steps=4)


def lengths(result):
    return [len(sample.words) for sample in result]


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("method", ["logits", "latent", "langevin"])
def test_the_length_is_exact_whatever_samples(pretrained, name, method):
    sampler, guidance = SamplerSettings(name=name, steps=4), Guidance(method=method)
    result = generate(Length(11), model=pretrained, samples=12, sampler=sampler, guidance=guidance)
    assert set(lengths(result)) == {11}
    assert result.success == 1.0


def test_within_a_tolerance_lengths_are_drawn_as_in_training(pretrained):
    """The tiny model's training sentences have 5 to 8 words, 6 and 7 four times as often as 5."""
    result = generate(Length(5, tolerance=2), model=pretrained, samples=60, sampler=QUICK)
    counts = lengths(result)
    assert set(counts) == {5, 6, 7}
    assert counts.count(5) < counts.count(6)
    assert result.success == 1.0


@pytest.mark.usefixtures("float64")
def test_the_length_of_a_sample_does_not_hang_on_the_batch(pretrained):
    runs = [
        lengths(generate(Length(5, tolerance=2), model=pretrained, samples=9, sampler=QUICK, batch_size=size))
        for size in (1, 4, 9)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_each_sample_its_own_length(pretrained):
    control = Length.each([LengthParams(words=n) for n in (3, 12)])
    assert lengths(generate(control, model=pretrained, samples=4, sampler=QUICK)) == [3, 12, 3, 12]


def test_ranges_of_two_controls_overlap(pretrained):
    result = generate(Length(5, tolerance=2) & Length(8, tolerance=1), model=pretrained, samples=8, sampler=QUICK)
    assert set(lengths(result)) == {7}


def test_lengths_without_overlap_are_refused(pretrained):
    with pytest.raises(RecipeError, match="at least 9 words, another at most 6"):
        generate(Length(5, tolerance=1) & Length(9), model=pretrained, samples=1)


def test_a_length_beyond_the_model_is_refused(pretrained):
    with pytest.raises(RecipeError, match="31 words, but the model holds at most 30"):
        generate(Length(31), model=pretrained, samples=1)


def test_the_check_counts_words_and_says_how_many():
    checks = Length(words=4, tolerance=1).verdicts(range(3), [["a"] * 3, ["a"] * 5, ["a"] * 7])
    assert [check.passed for check in checks] == [True, True, False]
    assert checks[2].score == pytest.approx(0.5)
    assert checks[2].why == "7 words"


def test_the_energy_is_the_log_probability_of_the_range(pretrained):
    """Against a sum over all 3 ** 5 sequences of word, END and PAD after START."""
    tokenizer, length = pretrained.tokenizer, 6
    probs = torch.rand(2, length, len(tokenizer), dtype=torch.float64).softmax(-1)
    control = Length.each([LengthParams(words=1), LengthParams(words=2, tolerance=1)])
    prepared = control.ready(batch_of(pretrained, 2, Layout(length, None)))
    state = state_of(pretrained, probs, probs.log)
    for row, (low, high) in enumerate([(1, 1), (1, 3)]):
        end, pad = probs[row, :, tokenizer.end_id], probs[row, :, tokenizer.pad_id]
        of_length = []
        for n in range(length - 1):
            shares = [1 - end[i] - pad[i] for i in range(1, n + 1)]
            shares += [end[n + 1]] + [pad[i] for i in range(n + 2, length)]
            of_length.append(math.prod(float(share) for share in shares))
        expected = -math.log(sum(of_length[low : high + 1]) / sum(of_length))
        assert prepared.energy(state)[row].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", ["e2e", "everyday"])
@pytest.mark.parametrize(
    ("control", "possible"),
    [
        (Length(5) | Length(12), {5, 12}),
        (~Length(12, tolerance=1) & Length(12, tolerance=2), {10, 14}),
        (~(Length(12, tolerance=1) | Length(14)) & Length(12, tolerance=2), {10}),
        (~(Length(9) & Length(9, tolerance=1)) & Length(9, tolerance=1), {8, 10}),
    ],
    ids=["any", "not", "not any", "not all"],
)
def test_under_any_and_not_a_number_of_words_is_settled(control, possible, model):
    drawn = generate(control, model=model, samples=12, sampler=SamplerSettings(steps=1))
    assert set(lengths(drawn)) <= possible


def test_numbers_of_words_of_which_none_is_left_are_refused(pretrained):
    with pytest.raises(RecipeError, match="leave no number of words"):
        generate(Length(9) & ~Length(9, tolerance=1), model=pretrained, samples=1)


@pytest.mark.parametrize("params", [{"words": 0}, {"words": 3, "tolerance": -1}, {"words": "many"}])
def test_impossible_parameters_are_refused(params):
    with pytest.raises(ValidationError):
        LengthParams(**params)


def test_from_words():
    assert Length.from_words([["a", "b"], []]) == [LengthParams(words=2), LengthParams(words=1)]


def test_one_word_is_one_word():
    assert [Length(4)(["a"] * count).why for count in (0, 1, 2)] == ["0 words", "1 word", "2 words"]
