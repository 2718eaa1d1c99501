"""Texts whose last word rhymes with a given one."""

import pytest

from controls import Avoid, Contains, Length, Rhyme
from dlmctl.checkpoint.pretrained import from_pretrained
from dlmctl.errors import RecipeError, UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.text.rhymes import rhymes_of
from tests.tokens.tokenizers_of_all_kinds import model_of

QUICK = SamplerSettings(steps=4)


@pytest.fixture(scope="module")
def everyday():
    return from_pretrained("everyday")


@pytest.mark.parametrize(
    ("word", "rhyming", "others"),
    [
        ("night", {"light", "white", "height", "kite"}, {"night", "late", "nice", "birthright"}),
        ("Day", {"they", "weigh", "away"}, {"day", "birthday", "die"}),
        ("love", {"above", "of"}, {"move", "prove"}),
        ("station", {"nation", "information"}, {"mission"}),
    ],
)
def test_words_rhyme_from_the_vowel_with_primary_stress(word, rhyming, others):
    assert rhyming <= rhymes_of(word)
    assert not others & rhymes_of(word)


def test_every_text_ends_with_a_rhyme(everyday):
    result = generate(Rhyme("night") & Contains("cold"), model=everyday, samples=8, sampler=QUICK)
    assert result.success == 1.0
    for sample in result:
        last = next(word for word in reversed(sample.words) if word.isalnum())
        assert last.casefold() in rhymes_of("night")
        assert sample.checks["rhyme"].why == f"'{last}' rhymes with 'night'"


def test_under_not_no_text_does(everyday):
    result = generate(~Rhyme("night") & Length(6), model=everyday, samples=8, sampler=QUICK)
    assert result.success == 1.0


def test_models_of_tokens_write_rhymes(everyday):
    result = generate(Rhyme("cat") & Length(3), model=model_of("word pieces"), samples=4, sampler=QUICK)
    assert result.success == 1.0


def test_verdicts():
    control = Rhyme("night")
    check = control(["It", "was", "white", "!"])
    assert (check.passed, check.score, check.where) == (True, 1.0, ())
    assert check.marks[0].start == 2
    check = control(["It", "was", "night", "."])
    assert (check.passed, check.score, check.where) == (False, 0.0, (2,))
    assert check.why == "'night' does not rhyme with 'night'"
    assert control(["!"]).why == "no word"


def test_what_cannot_be_is_said(everyday, pretrained):
    for word in ("orange", "zorbles", ""):
        with pytest.raises(UserError):
            Rhyme(word)
    with pytest.raises(RecipeError, match="rhyme: the model knows no word that rhymes with 'typhoon'"):
        generate(Rhyme("typhoon"), model=pretrained, samples=1)
    with pytest.raises(RecipeError, match="no text satisfies"):
        generate(Rhyme("garden") & Avoid("pardon", "harden", "Pardon"), model=everyday, samples=1)
