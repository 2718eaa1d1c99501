from collections import Counter
from pathlib import Path

import pytest
import torch

from controls import Avoid, Infill, Length
from controls.avoid import AvoidParams
from controls.phrases import occurrences
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from tests.conftest import tiny_config

QUICK = SamplerSettings(steps=4)


def common(pretrained, size):
    """The most frequent phrase of ``size`` words in unguided texts of the tiny model."""
    counts = Counter(
        tuple(sample.words[at : at + size])
        for sample in generate(model=pretrained, samples=30, sampler=QUICK)
        for at in range(len(sample.words) - size + 1)
    )
    return " ".join(counts.most_common(1)[0][0])


@pytest.mark.parametrize("method", ["logits", "latent", "langevin"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_is_common_otherwise_is_never_there(pretrained, method, size):
    phrase = common(pretrained, size)
    free = generate(model=pretrained, samples=30, sampler=QUICK)
    assert any(occurrences(sample.words, phrase.split()) for sample in free)
    result = generate(Avoid(phrase), model=pretrained, samples=30, sampler=QUICK, guidance=Guidance(method=method))
    assert not any(occurrences(sample.words, phrase.split()) for sample in result)
    assert result.success == 1.0


def test_the_rest_of_a_phrase_may_occur(pretrained):
    phrase = common(pretrained, 2)
    result = generate(Avoid(phrase), model=pretrained, samples=30, sampler=QUICK)
    assert any(set(phrase.split()) & set(sample.words) for sample in result)


def test_each_sample_its_own_words(pretrained):
    word = common(pretrained, 1)
    control = Avoid.each([AvoidParams(words=[word]), AvoidParams(words=["Anna"])])
    result = generate(control, model=pretrained, samples=30, sampler=QUICK)
    assert not any(word in sample.words for sample in result.samples[::2])
    assert any(word in sample.words for sample in result.samples[1::2])


@pytest.mark.usefixtures("float64")
def test_it_leaves_the_other_texts_of_a_batch_as_they_are(pretrained):
    one = generate(Avoid("Anna", "old bridge"), model=pretrained, samples=6, sampler=QUICK, batch_size=1)
    six = generate(Avoid("Anna", "old bridge"), model=pretrained, samples=6, sampler=QUICK)
    assert [sample.words for sample in one] == [sample.words for sample in six]


@pytest.mark.parametrize(
    "control", [Avoid("zebra", "grey zebra"), Avoid("zebra") | Avoid("zebra")], ids=["alone", "any"]
)
@pytest.mark.parametrize("settings", [{}, {"objective": "paper", "self_conditioning": False}], ids=["words", "latents"])
def test_a_word_that_the_model_does_not_know_is_avoided_anyway(tokenizer, control, settings):
    torch.manual_seed(0)
    model = Pretrained(DiffusionLM(tiny_config(len(tokenizer), **settings)).eval(), tokenizer, Path())
    assert generate(control, model=model, samples=2, sampler=QUICK).success == 1.0


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (Infill("the old ___") & Avoid("old"), "avoid: no text of 3 words is left"),
        (Avoid("the old") & Infill("the old ___"), "avoid: no text of 3 words is left"),
        (Infill("the old ___") & Avoid("the old"), "avoid: no text of 3 words is left"),
    ],
)
def test_a_template_with_avoided_words_is_refused(pretrained, control, message):
    with pytest.raises(RecipeError, match=message):
        generate(control, model=pretrained, samples=1)


def test_avoiding_every_word_is_refused(pretrained):
    words = pretrained.tokenizer.words(range(4, len(pretrained.tokenizer)))
    with pytest.raises(RecipeError, match="avoid: no text of 4 words satisfies it"):
        generate(Avoid(*words) & Length(4), model=pretrained, samples=1)


def test_the_check_wants_whole_words_in_their_case():
    control = Avoid.each([AvoidParams(words=["grey cats", "river"])] * 4)
    checks = control.verdicts(
        range(4), [["grey", "old", "cats"], ["two", "grey", "cats"], ["River"], ["grey", "cats", "river", "river"]]
    )
    assert [check.where for check in checks] == [(), (1, 2), (), (0, 1, 2, 3)]
    assert [check.score for check in checks] == [1.0, 0.5, 1.0, 0.0]
    assert [check.passed for check in checks] == [True, False, True, False]
    assert checks[3].why == "with 'grey cats', 'river'"


@pytest.mark.parametrize("words", [[], [" "], " ", 3])
def test_words_must_be_given(words):
    with pytest.raises(UserError):
        Avoid(words=words)


def test_targets_are_parameters():
    assert Avoid.from_target({"words": ["river"]}) == AvoidParams(words=["river"])
