"""The control ``check``: what a function may return, and that nothing else lets a text pass."""

import numpy as np
import pytest

import dlmctl
from controls import Predicate
from dlmctl.control.base import AnyOf
from dlmctl.control.check import Check
from dlmctl.errors import UserError
from dlmctl.evaluation.control_success import evaluate_control
from tests.checkpoint.tiny_vendors import write_llada

WORDS = ["a", "b"]


def returning(found):
    """A function that returns the same for every text."""

    def judge(text):
        return found

    return judge


@pytest.mark.parametrize(
    ("found", "passed", "why"),
    [
        (True, True, "judge says yes"),
        (np.bool_(False), False, "judge says no"),
        ((False, "too long"), False, "too long"),
        (Check(0.5, True, "half"), True, "half"),
    ],
)
def test_a_verdict_is_taken_as_it_is(found, passed, why):
    check = Predicate(returning(found))(WORDS)
    assert (check.passed, check.why) == (passed, why)


@pytest.mark.parametrize("found", ["no: too bad", None, 1, 0.3, (True, "a", "b"), (True,), ("no", True), (True, 3), []])
def test_what_is_no_verdict_passes_no_text(found):
    with pytest.raises(UserError, match=r"^control 'check': judge must return True or False, ") as caught:
        Predicate(returning(found))(WORDS)
    assert repr(found) in str(caught.value)


# On a model over tokens.


class AsWritten(Predicate):
    """A check that must never be called with words alone."""

    def check(self, params, words):
        raise AssertionError("the words do not say what stood between them")


@pytest.fixture(scope="module")
def llada(tmp_path_factory):
    return dlmctl.load(write_llada(tmp_path_factory.mktemp("llada") / "m"))


@pytest.fixture
def reader():
    """A function that passes texts without a line break, and the list of texts that it was called with."""

    def judge(text):
        seen.append(text)
        return "\n" not in text

    seen: list[str] = []
    return judge, seen


FEW = {"new_tokens": 10, "temperature": 1.0, "precision": "fp32"}


@pytest.mark.parametrize("combined", ["alone", "any", "not", "all"])
def test_it_judges_the_text_as_it_is_written(llada, reader, combined):
    judge, seen = reader
    one = AsWritten(judge)
    control = {"alone": one, "any": AnyOf([one, one]), "not": ~one, "all": one & AsWritten(lambda text: True)}[combined]
    result = llada.generate(control, samples=6, sampler=FEW, until={"max_rounds": 1}, device="cpu")
    assert set(seen) == set(result.texts)
    spelled = {llada.tokenizer.text(sample.words) for sample in result}
    assert spelled != set(seen)  # or nothing is shown here
    if combined == "alone":
        assert [sample.checks["check"].passed for sample in result] == ["\n" not in text for text in result.texts]


def test_particles_are_weighed_by_it(llada, reader):
    judge, seen = reader
    sampler = {**FEW, "particles": 2, "reward": "score", "resample_every": 4}
    result = llada.generate(AsWritten(judge), samples=2, sampler=sampler, until={"max_rounds": 1}, device="cpu")
    assert len(seen) > len(result)
    assert set(result.texts) <= set(seen)


def test_it_is_evaluated_by_it(llada, reader):
    judge, seen = reader
    settings = dlmctl.Recipe(sampler={**FEW, "steps": None})
    assert evaluate_control(AsWritten(judge), llada, 2, settings=settings)["targets"] == 2
    assert seen


def test_words_alone_are_spelled_out():
    assert Predicate(lambda text: text == "a pub, near")("a pub , near".split()).passed
