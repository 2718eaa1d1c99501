"""What authors of controls can rely on, and the messages for faults in their code."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from controls import Contains
from controls.length import Length
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check, Mark
from dlmctl.control.prepared import Energy, Part, Prepared
from dlmctl.control.state import BatchContext
from dlmctl.diffusion.layout import Layout
from dlmctl.diffusion.noise import Draw
from dlmctl.errors import UserError
from dlmctl.generation.diagnose import examine
from dlmctl.generation.generate import generate
from dlmctl.generation.run import run_recipe
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.settings import SamplerSettings

QUICK = SamplerSettings(steps=2)


class LettersParams(ControlParams):
    most: int = 3


class PreparedLetters(Prepared):
    def energy(self, state):
        return state.x.square().sum((1, 2))


class Letters(Control[LettersParams]):
    """A correct control, into which the tests patch faults."""

    name = "letters"
    Params = LettersParams

    def __init__(self, **params):
        super().__init__(**params)
        self.table = {"a": 1}

    def prepare(self, batch):
        self.table["a"]
        return PreparedLetters()

    def check(self, params, words):
        return Check(1.0, len(self.table) == 1, "")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_init_runs_however_a_control_is_made(pretrained, count):
    sets = [LettersParams(most=most) for most in range(1, count + 1)]
    control = Letters.each(sets)
    assert control.table == (0.5 * control).table == {"a": 1}
    assert [control.dealt(sample).most for sample in range(4)] == [sets[sample % count].most for sample in range(4)]
    assert (0.5 * control & ~~control)(["a"]).passed
    assert generate(control, model=pretrained, samples=2, sampler=QUICK).success == 1.0


def message_of(caught):
    message = str(caught.value)
    assert message.startswith(f"control 'letters' ({__name__}): "), message
    assert "\n" not in message
    assert len(message) < 300
    return message


def fails(*arguments):
    return {}["nowhere"]


def refuses(*arguments):
    raise UserError("this model has no letters.", where="letters")


BATCH = BatchContext(None, None, None, [Draw(0, 0)], [Layout(8, None)])
CALLS = {
    "attach": lambda control: (control & Letters()).load_from(None),
    "word_range": lambda control: control.range_of(0),
    "lengths": lambda control: control.lengths_of(0, 3),
    "prepare": lambda control: control.ready(BATCH),
    "check": lambda control: control(["a"]),
}


@pytest.mark.parametrize("member", CALLS)
def test_what_an_author_raises_is_one_message(monkeypatch, member):
    monkeypatch.setattr(Letters, member, fails)
    with pytest.raises(UserError) as caught:
        CALLS[member](Letters())
    assert message_of(caught).endswith(f"{member} failed: KeyError: 'nowhere'.")
    assert isinstance(caught.value.__cause__, KeyError)
    monkeypatch.setattr(Letters, member, refuses)
    with pytest.raises(UserError, match=r"^letters: this model has no letters"):
        CALLS[member](Letters())


def test_a_control_without_a_check_says_so(monkeypatch):
    monkeypatch.delattr(Letters, "check")
    with pytest.raises(UserError) as caught:
        Letters()(["a"])
    assert message_of(caught).endswith("has no check.")


@pytest.mark.parametrize(
    "verdict",
    [
        True,
        None,
        0.5,
        (1.0, True, ""),
        *(Check(score, True, "") for score in (7.5, -0.1, math.nan, "all", None)),
        Check(1.0, None, ""),
        *(Check(1.0, True, "", (), marks) for marks in (((0, 1, "NP", True, ""),), (Mark(0, None),))),
    ],
)
def test_what_is_no_verdict_is_refused(monkeypatch, verdict):
    monkeypatch.setattr(Letters, "check", lambda self, params, words: verdict)
    with pytest.raises(UserError, match="check must return a Check with a score from 0 to 1") as caught:
        Letters()(["a"])
    assert str(verdict)[:20] in message_of(caught)


def test_a_control_does_not_end_the_program(monkeypatch):
    monkeypatch.setattr(Letters, "check", lambda self, params, words: sys.exit(0))
    with pytest.raises(UserError, match="check failed: SystemExit: 0") as caught:
        Letters()(["a"])
    message_of(caught)


def test_a_verdict_in_numbers_of_numpy_can_be_written(monkeypatch):
    mark = Mark(np.int64(0), np.int64(1), met=np.bool_(False))
    verdict = Check(np.float32(0.5), np.bool_(True), "", (np.int64(1),), (mark,))
    monkeypatch.setattr(Letters, "check", lambda self, params, words: verdict)
    assert json.dumps(Letters()(["a", "b"])) == '[0.5, true, "", [1], [[0, 1, "", false, ""]], {}]'


@pytest.mark.parametrize("values", [{"letters": math.nan}, {"letters": "3"}, {"digits": 3}, {"score": 0.5}])
def test_values_are_numbers_that_the_control_says_it_measures(monkeypatch, values):
    monkeypatch.setattr(Letters, "measures", ("letters", "score"))
    monkeypatch.setattr(Letters, "check", lambda self, params, words: Check(1.0, True, "", values=values))
    with pytest.raises(UserError, match="as values only numbers that `measures` names"):
        Letters()(["a"])


def test_values_stay_under_not_and_any(monkeypatch):
    monkeypatch.setattr(Letters, "measures", ("letters",))
    monkeypatch.setattr(Letters, "check", lambda self, params, words: Check(1.0, True, "", values={"letters": 3}))
    for control in (Letters(), ~Letters(), Letters() | Letters()):
        assert control(["a"]).values == {"letters": 3.0}


def test_values_of_the_same_name_are_left_out_where_controls_are_combined(monkeypatch):
    monkeypatch.setattr(Letters, "measures", ("letters",))
    monkeypatch.setattr(Letters, "check", lambda self, params, words: Check(1.0, True, "", values={"letters": 3}))
    assert (Letters() & Length(1))(["a"]).values == {"letters": 3.0}
    assert (Letters() & Letters())(["a"]).values == {}


@pytest.mark.parametrize("found", [3, (1,), ("a", "b"), (1.5, 2.5), (math.nan, 3), (True, 5)])
def test_a_range_is_two_whole_numbers(monkeypatch, found):
    monkeypatch.setattr(Letters, "word_range", lambda self, params: found)
    with pytest.raises(UserError, match="word_range must return two whole numbers or None, but returned") as caught:
        Letters().range_of(0)
    message_of(caught)


@pytest.mark.parametrize("found", [(0, 0), (-5, -3), (-1, 4)])
def test_a_text_has_a_word_at_least(monkeypatch, found):
    monkeypatch.setattr(Letters, "word_range", lambda self, params: found)
    with pytest.raises(UserError, match="word_range must return the fewest words, 0 or more") as caught:
        Letters().range_of(0)
    message_of(caught)
    monkeypatch.setattr(Letters, "word_range", lambda self, params: (0, 4))
    assert Letters().range_of(0) == (1, 4)


@pytest.mark.parametrize("weight", ["x", None, -2, math.nan])
def test_the_weight_of_a_class_is_a_number(monkeypatch, weight):
    monkeypatch.setattr(Letters, "weight", weight)
    with pytest.raises(
        UserError, match=rf"control class Letters .*: has weight = {weight}, which is not a finite number from 0"
    ):
        Letters()


def test_an_energy_is_a_function(monkeypatch):
    monkeypatch.setattr(Letters, "prepare", lambda self, batch: Energy(3))
    with pytest.raises(UserError, match="prepare failed: TypeError: Energy takes a function of the state") as caught:
        Letters().ready(BATCH)
    message_of(caught)


def test_a_check_cannot_change_the_words_of_a_text(pretrained, monkeypatch):
    monkeypatch.setattr(Letters, "check", lambda self, params, words: Check(1.0, not words.clear(), ""))
    words = ["a", "b"]
    assert Letters()(words).passed
    assert words == ["a", "b"]
    (sample,) = generate(Letters() & Length(5), model=pretrained, samples=1, sampler=QUICK)
    assert len(sample.words) == 5
    assert sample.passed


def test_what_not_turns_round_is_a_control(monkeypatch):
    monkeypatch.setattr(Letters, "under_not", lambda self: 1 / 0)
    with pytest.raises(UserError, match="under_not failed: ZeroDivisionError") as caught:
        (~Letters()).verdicts([0], [["a"]])
    message_of(caught)
    monkeypatch.setattr(Letters, "under_not", lambda self: None)
    with pytest.raises(UserError, match="under_not must return a control, not NoneType"):
        (~Letters()).verdicts([0], [["a"]])


@pytest.mark.parametrize(
    "found", [3, "x", torch.zeros(2, 2), torch.zeros(2, 3, 4, dtype=torch.bool), np.zeros((2, 3, 4), np.float32)]
)
@pytest.mark.parametrize("member", ["restrict", "constrain"])
def test_word_logits_stay_word_logits(monkeypatch, member, found):
    part = Part("letters", 1.0, PreparedLetters())
    monkeypatch.setattr(PreparedLetters, member, lambda self, *_: found, raising=False)
    logits = torch.zeros(2, 3, 4)
    with pytest.raises(UserError, match=rf"'letters' .*{member} must return word logits of the shape \[2, 3, 4\]"):
        part.restrict(logits) if member == "restrict" else part.constrain(logits, torch.zeros(2))


@pytest.mark.parametrize("member", ["attach", "__init__"])
def test_a_control_that_fails_in_a_recipe_is_named_with_its_line(monkeypatch, pretrained, member):
    monkeypatch.setattr(Length, member, lambda self, *_, **__: 1 / 0)
    recipe, file = read_recipe("samples: 1\ncontrols:\n  - length: {words: 3}\n", "mine.yaml")
    for act in (lambda: examine(recipe, pretrained, file), lambda: run_recipe(recipe, model=pretrained, origin=file)):
        with pytest.raises(UserError, match=r"mine.yaml:\d: control 'length' .*: ZeroDivisionError"):
            act()


def test_a_verdict_is_given_for_every_text(monkeypatch):
    monkeypatch.setattr(Letters, "check_many", lambda self, params, texts: [Check(1.0, True, "")])
    with pytest.raises(UserError, match="check_many returned 1 verdicts for 2 texts") as caught:
        Letters().verdicts([0, 1], [["a"], ["b"]])
    message_of(caught)


def test_prepare_gives_something_prepared(monkeypatch):
    monkeypatch.setattr(Letters, "prepare", lambda self, batch: None)
    with pytest.raises(UserError, match="prepare must return a Prepared, not NoneType") as caught:
        Letters().ready(BATCH)
    message_of(caught)


ENERGIES = {
    "shape": (lambda self, state: state.x.sum(2), r"must have the shape \[2\], one number per text, not \[2, 32\]"),
    "mean": (lambda self, state: state.x.mean(), r"must have the shape \[2\], one number per text, not \[\]"),
    "array": (lambda self, state: np.zeros(2), r"must have the shape \[2\], one number per text, not ndarray"),
    "number": (lambda self, state: 3.0, r"must have the shape \[2\], one number per text, not float"),
    "detached": (lambda self, state: state.x.detach().sum((1, 2)), "has no gradient"),
    "constant": (lambda self, state: torch.zeros(len(state.x)), "has no gradient"),
    "exception": (fails, "energy failed: KeyError: 'nowhere'"),
    "none": (Prepared.energy, "has no energy, and nothing else that steers"),
}


@pytest.mark.parametrize("fault", ENERGIES)
@pytest.mark.parametrize("way", ["alone", "any", "not"])
def test_a_faulty_energy_is_named_wherever_it_stands(pretrained, monkeypatch, fault, way):
    energy, expected = ENERGIES[fault]
    monkeypatch.setattr(PreparedLetters, "energy", energy)
    letters = Letters()
    control = {"alone": letters, "any": letters | letters, "not": ~letters}[way]
    with pytest.raises(UserError, match=expected) as caught:
        generate(control, model=pretrained, samples=2, sampler=QUICK.model_copy(update={"canvas": "full"}))
    message_of(caught)


@pytest.mark.parametrize("method", ["restrict", "constrain", "verify"])
def test_exact_constraints_that_fail_are_one_message(pretrained, monkeypatch, method):
    monkeypatch.setattr(PreparedLetters, method, fails)
    with pytest.raises(UserError, match=f"{method} failed: KeyError: 'nowhere'") as caught:
        generate(Letters(), model=pretrained, samples=1, sampler=QUICK)
    message_of(caught)


def test_what_others_leave_is_told_before_the_first_step(pretrained, monkeypatch):
    told = []

    def beside(self, left, evidence_given):
        told.append(left)
        return self

    monkeypatch.setattr(PreparedLetters, "beside", beside)
    generate(Letters() & ~Contains("bread"), model=pretrained, samples=1, sampler=QUICK)
    (bread,) = pretrained.tokenizer.encode(["bread"])[1:-1]
    assert told
    assert not told[0][:, 1:3, bread].any()
    assert told[0][:, 1:3].any(-1).all()
    for returned, expected in ((fails, "beside failed: KeyError"), (lambda *_: None, "beside must return a Prepared")):
        monkeypatch.setattr(PreparedLetters, "beside", returned)
        with pytest.raises(UserError, match=expected) as caught:
            generate(Letters() & ~Contains("bread"), model=pretrained, samples=1, sampler=QUICK)
        message_of(caught)


def test_without_a_prepare_a_control_only_checks(pretrained, monkeypatch):
    monkeypatch.delattr(Letters, "prepare")
    free = generate(model=pretrained, samples=2, sampler=QUICK)
    checked = generate(Letters(), model=pretrained, samples=2, sampler=QUICK)
    assert [sample.words for sample in checked] == [sample.words for sample in free]
    assert checked.success == 1.0
    for control in (Letters() | Letters(), ~Letters(), ~(Letters() & Letters())):
        checked = generate(control, model=pretrained, samples=2, sampler=QUICK)
        assert [sample.words for sample in checked] == [sample.words for sample in free]
