"""A control judges by the model that it is used with, whatever other model it was used with before."""

import pickle

import pytest

from controls import Avoid, Contains, Infill, Pattern
from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.text.tokenizer import WordTokenizer
from tests.diffusion.tiny_masked import tiny_masked

QUICK = SamplerSettings(steps=4)
# "You can't ." as models split it that learned from different text.
SPLIT = {"e2e": ["You", "can", "'t", "."], "penn": ["You", "ca", "n't", "."]}


def model_of(splitting, folder):
    words = ["START", "END", "UNK", "PAD", "You", *SPLIT[splitting][1:]]
    tokenizer = WordTokenizer({word: at for at, word in enumerate(words)}, splitting)
    return Pretrained(tiny_masked(vocab_size=len(words)), tokenizer, folder)


@pytest.fixture
def models(tmp_path):
    return {splitting: model_of(splitting, tmp_path) for splitting in SPLIT}


@pytest.mark.parametrize(
    ("control", "passes"),
    [
        (Contains("can't"), True),
        (Contains("can't", "You"), True),
        (Infill("You can't ___"), True),
        (Pattern("You can't <any>"), True),
        (Pattern("You gonna+"), False),
        (Avoid("can't"), False),
        (~Contains("can't"), False),
        (~Avoid("can't"), True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("words", SPLIT.values(), ids=SPLIT)
def test_without_a_model_words_of_any_model_are_judged(control, passes, words):
    assert control(words).passed is passes


def test_a_control_keeps_nothing_of_the_model_that_it_guided(models):
    control = Contains("can't")
    for splitting in ("e2e", "penn", "e2e"):
        result = generate(control & Avoid("You"), model=models[splitting], samples=2, sampler=QUICK, device="cpu")
        assert result.success == 1.0
        assert all(control(words).passed for words in SPLIT.values())
    assert len(pickle.dumps(control)) < 1000


def test_a_control_that_was_given_a_model_goes_by_it(models):
    control = Contains("can't")
    control.attach(models["penn"])
    assert generate(control, model=models["e2e"], samples=2, sampler=QUICK, device="cpu").success == 1.0
    assert control(SPLIT["penn"]).passed
    assert not control(SPLIT["e2e"]).passed


class Remembers(Control[ControlParams]):
    """Passes if a model was attached."""

    name = "remembers"
    Params = ControlParams
    model = None

    def attach(self, model):
        self.model = model

    def check(self, params, words):
        return Check(1.0, self.model is not None, "")


@pytest.mark.parametrize("made", [lambda own: own, lambda own: own & own, lambda own: ~~(own | own)])
def test_what_an_author_loads_is_kept_by_a_copy(models, made):
    own = Remembers()
    for model in models.values():
        assert generate(made(own), model=model, samples=1, sampler=QUICK, device="cpu").success == 1.0
        assert own.model is None
