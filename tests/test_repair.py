"""Repair: only the words at fault are redrawn."""

from __future__ import annotations

import pytest
import torch

from dlmctl.annotators.scorer import load_scorer, token_nats
from dlmctl.checkpoint.pretrained import from_pretrained, save_pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.generation.generate import generate
from dlmctl.generation.repair import at_fault, opened_places, unlikely_place
from dlmctl.generation.results import Sample
from dlmctl.recipe.settings import SamplerSettings
from tests.conftest import SENTENCES


class First(Control):
    """Wants one of some words as the first one, and blames it; remembers the texts of every round."""

    name = "first"
    Params = ControlParams

    def __init__(self, *wanted: str, blames: bool = True) -> None:
        super().__init__()
        self.wanted, self.blames, self.seen = wanted, blames, []

    def word_range(self, params):
        return 7, 7

    def check_many(self, params, texts):
        self.seen.append([list(text) for text in texts])
        passed = [text[0] in self.wanted for text in texts]
        return [Check(float(one), one, "", (0,) if self.blames else ()) for one in passed]


@pytest.fixture(scope="module")
def masked(tmp_path_factory, tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden": 32, "layers": 1, "heads": 2, "inner": 48, "max_length": 32}
    config = MaskedConfig(length=24, denoiser=sizes, vocab_size=len(tokenizer), sentence_lengths=[0] * 7 + [1])
    folder = tmp_path_factory.mktemp("repair")
    save_pretrained(MaskedLM(config), tokenizer, folder)
    return from_pretrained(folder)


def test_the_neighbours_of_a_fault_are_opened_with_it() -> None:
    checks = {"a": Check(0.5, False, "", (0, 4)), "b": Check(1.0, True, "", (2,))}
    text = Sample(0, ["w"] * 6, "", checks, None)
    assert at_fault(checks) == {0, 4}  # a passed check blames nothing
    assert opened_places(text) == [0, 1, 3, 4, 5]
    assert opened_places(text, worst=2) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("family", ["latent", "masked"])
def test_repair_keeps_the_rest_of_a_text(family, pretrained, masked) -> None:
    control = First("no such word")
    model = pretrained if family == "latent" else masked
    sampler = SamplerSettings(steps=3 if family == "latent" else None)
    result = generate(
        control, model=model, samples=2, sampler=sampler, until={"max_rounds": 2, "repair": True}, device="cpu"
    )
    first, again = control.seen
    # Two words of seven are opened: of a masked text three proposals in the steps of one draw.
    assert len(again) == (2 if family == "latent" else 6)
    for text in again:
        assert text[2:] in [words[2:] for words in first]
    assert any(text not in first for text in again)
    assert [sample.rounds for sample in result] == [2, 2]


def test_a_repaired_text_is_kept_if_it_is_better(masked) -> None:
    words = sorted({word for sentence in SENTENCES for word in sentence})
    control = First(*words[::2])
    result = generate(
        control, model=masked, samples=8, sampler=SamplerSettings(steps=None), until={"max_rounds": 8, "repair": True}
    )
    assert result.success == 1
    mended = [sample for sample in result if sample.rounds > 1]
    assert mended
    drafts = {tuple(text[2:]) for text in control.seen[0]}
    assert {tuple(sample.words[2:]) for sample in mended} <= drafts


def test_blame_outside_of_a_text_is_ignored(masked, monkeypatch) -> None:
    monkeypatch.setattr(
        First, "check_many", lambda self, params, texts: [Check(0.0, False, "", (99, -5)) for _ in texts]
    )
    found = generate(First("x"), model=masked, samples=2, until={"max_rounds": 2, "repair": True}, device="cpu")
    assert [sample.rounds for sample in found] == [2, 2]


def test_a_text_without_blamed_words_is_drawn_anew(masked) -> None:
    control = First("no such word", blames=False)
    generate(control, model=masked, samples=4, until={"max_rounds": 2, "repair": True}, sampler={"steps": None})
    first, again = control.seen
    assert len(again) == 4
    assert all(text[2:] not in [words[2:] for words in first] for text in again)


class Seven(First):
    """Texts of seven words, all of which pass."""

    def check_many(self, params, texts):
        self.seen.append([list(text) for text in texts])
        return [Check(1.0, True, "")] * len(texts)


def test_a_text_that_is_not_fluent_enough_is_opened_at_its_least_likely_word() -> None:
    control = Seven()
    until = {"max_rounds": 2, "repair": True, "worst_word": 0.0}
    generate(control, model="everyday", samples=4, until=until, rank_by=["fluency"], seed=3)
    drafts, again = control.seen
    nats = token_nats(*load_scorer(from_pretrained("everyday").folder / "scorer"), drafts)
    worst = [max(range(7), key=row.__getitem__) for row in nats]
    opened = [{at - 1, at, at + 1} for at in worst]
    for text in again:
        changed = [{at for at in range(7) if text[at] != draft[at]} for draft in drafts]
        assert any(places <= near for places, near in zip(changed, opened, strict=True))
    assert any(text not in drafts for text in again)


def test_the_next_repair_opens_the_next_word() -> None:
    text = Sample(0, ["w"] * 4, "", {}, None)
    nats = [1.0, 4.0, 2.0, 3.0, 9.0]  # the last is END
    assert [unlikely_place(text, nats, number) for number in (1, 2, 3, 4)] == [1, 3, 2, 1]
    blamed = Sample(0, ["w"] * 4, "", {"a": Check(0.5, False, "", (0,))}, None)
    assert unlikely_place(blamed, nats, 2) == 1
