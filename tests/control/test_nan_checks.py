"""NaN and infinity in logits give one message that names the control, on the CPU's and on the GPU's code path."""

import math

import pytest
import torch

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control import nan_checks
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.nan_checks import may_be_spoiled, spoiled
from dlmctl.control.prepared import Energy, Prepared
from dlmctl.diffusion.walks import drawn
from dlmctl.errors import UserError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import SamplerSettings
from tests.diffusion.tiny_masked import TOKENIZER, tiny_masked

MEMBERS = ("restrict", "constrain", "evidence_given")


class Prepares(Control[ControlParams]):
    """Returns the prepared control that it is constructed with."""

    name = "own"
    Params = ControlParams

    def __init__(self, prepared):
        super().__init__()
        self.prepared = prepared

    def prepare(self, batch):
        return self.prepared

    def check(self, params, words):
        return Check(1.0, True, "")


def steering(member, change):
    """A prepared control with one member, which applies ``change`` to the logits, or to evidence of zeros."""

    def method(self, logits, *_):
        return change(torch.zeros_like(logits) if member == "evidence_given" else logits.clone())

    return type("Own", (Prepared,), {member: method, "weighs": member == "evidence_given"})()


def spoils(number, since=3):
    """A function that writes a number into one element of a tensor, from the ``since``th call on."""
    calls = []

    def change(logits):
        calls.append(None)
        if len(calls) >= since:
            logits[0, 1, 5] = number
        return logits

    return change


@pytest.fixture(params=["masked", "gaussian"])
def model(request, tmp_path, pretrained):
    return pretrained if request.param == "gaussian" else Pretrained(tiny_masked(), TOKENIZER, tmp_path)


def texts(model, control, **settings):
    sampler = SamplerSettings(steps=6, **settings)
    return [sample.words for sample in generate(control, model=model, samples=2, sampler=sampler, device="cpu")]


@pytest.mark.parametrize("waits", [True, False], ids=["cpu", "gpu"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("member", MEMBERS)
def test_what_is_no_number_is_one_message(monkeypatch, model, member, number, waits):
    if not waits:
        monkeypatch.setattr(nan_checks, "AT_ONCE_CPU", False)
    control = Prepares(steering(member, spoils(number)))
    with pytest.raises(UserError, match=f"control 'own' .*: {member} must return numbers, or -inf") as caught:
        texts(model, control & Prepares(steering("restrict", spoils(0.0))))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("waits", [True, False], ids=["cpu", "gpu"])
def test_texts_are_the_same_whether_numbers_are_looked_at_or_noted(monkeypatch, model, waits):
    control = Prepares(steering("restrict", spoils(-math.inf)))
    wanted = texts(model, control)
    if not waits:
        monkeypatch.setattr(nan_checks, "AT_ONCE_CPU", False)
    assert texts(model, control) == wanted


def test_large_numbers_whose_sum_overflows_are_numbers(model):
    assert len(texts(model, Prepares(steering("restrict", lambda logits: logits.clamp(max=0) + 3e38)))) == 2


def test_logits_that_are_changed_in_their_place_are_looked_at(model):
    change = spoils(math.nan)
    own = type("Own", (Prepared,), {"restrict": lambda self, logits: change(logits)})()
    with pytest.raises(UserError, match=r"control 'own' .*: restrict must return numbers"):
        texts(model, Prepares(own))


@pytest.mark.parametrize("member", [*MEMBERS, "evidence", "energy"])
def test_double_precision_is_taken_by_every_family(model, member):
    if member == "energy":
        own = Energy(lambda state: state.word_log_probs.double().sum((1, 2)))
    elif member == "evidence":
        own = None
    else:
        own = steering(member, torch.Tensor.double)
    control = WithEvidence() if own is None else Prepares(own)
    assert len(texts(model, control)) == 2


class WithEvidence(Prepares):
    name = "evident"

    def __init__(self):
        super().__init__(None)

    def prepare(self, batch):
        prepared = type("Own", (Prepared,), {})()
        prepared.evidence = torch.zeros(len(batch), batch.length, len(batch.vocabulary), dtype=torch.float64)
        return prepared


def test_a_weight_of_0_leaves_evidence_that_rules_words_out_alone(model):
    control = Prepares(steering("evidence_given", spoils(-math.inf, since=1)))
    assert texts(model, 0 * control) == texts(model, Prepares(steering("evidence_given", torch.clone)))


def test_the_quick_look_misses_nothing():
    logits = torch.randn(2, 3, 4)
    for number, wanted in ((0.0, False), (-math.inf, False), (math.inf, True), (math.nan, True)):
        logits[1, 2, 3] = number
        assert bool(spoiled(logits)) is wanted
        assert may_be_spoiled(logits) is wanted
        assert not spoiled(logits, logits)
    huge = torch.full((1, 2, 2), torch.finfo(torch.float32).max)  # whose sum is infinite
    assert not spoiled(huge)


def test_of_weights_that_are_no_numbers_an_id_is_drawn():
    assert int(drawn(torch.full((1, 5), math.nan), torch.tensor([0.5]))) < 5
