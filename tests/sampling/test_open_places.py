"""Scoring only open places, a few texts at a time, gives the same texts as scoring all places at once."""

from __future__ import annotations

import pytest
import torch

from controls import Avoid, Contains, Length, Pos
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.diffusion import absorbing
from dlmctl.diffusion.masked import MaskedConfig, MaskedLM
from dlmctl.diffusion.noise import Draw
from dlmctl.diffusion.walks import WALKS
from dlmctl.recipe.presets import settings_of
from dlmctl.sampling.draw import draw_texts, prepared_for
from dlmctl.sampling.open_places import steers_places_independently
from dlmctl.sampling.plan import Plan

FIVE = Length(5)
CONTROLS = {
    "free": None,
    "length": FIVE,
    "avoid": Avoid("garden") & FIVE,
    "contains": Contains("river") & FIVE,
    "any": (Contains("old") | Contains("garden")) & FIVE,
}


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    sizes = {"hidden": 16, "layers": 1, "heads": 2, "inner": 16, "max_length": 16}
    config = MaskedConfig(vocab_size=len(tokenizer), length=16, denoiser=sizes, sentence_lengths=[0, 0, 0, 1, 2, 1])
    torch.manual_seed(0)
    return Pretrained(MaskedLM(config).eval().double(), tokenizer, tmp_path_factory.mktemp("none"))


def drawn(model, control, **changes):
    """Words and nats of six texts."""
    chosen = settings_of("fast", "masked")
    sampler = chosen.sampler.model_copy(update={"precision": "fp32", **changes})
    found = draw_texts(Plan(model, control, sampler, chosen.guidance, 6), [Draw(0, at) for at in range(6)])
    return [(one.words, pytest.approx(one.nats)) for one in found]


@pytest.mark.parametrize("piece", [1, 2**18])
@pytest.mark.parametrize("name", CONTROLS)
def test_texts_are_the_same_as_with_all_places_at_once(model, monkeypatch, name, piece):
    monkeypatch.setattr(absorbing, "PIECE_CPU", piece)
    found = drawn(model, CONTROLS[name])
    monkeypatch.setattr(absorbing, "PIECE_CPU", None)
    assert drawn(model, CONTROLS[name]) == found


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("more", [{}, {"steps": 2}, {"block": 2, "steps": 6}])
def test_the_same_for_every_walk(model, monkeypatch, walk, more):
    asked = {"name": walk, "remask": 0.3, **more}
    found = drawn(model, FIVE, **asked)
    monkeypatch.setattr(absorbing, "PIECE_CPU", None)
    assert drawn(model, FIVE, **asked) == found


def test_only_open_places_are_scored(model, monkeypatch):
    counts = []
    plainly = model.model.denoiser.scores

    def scores(hidden, positions=None):
        counts.append(hidden.shape[0] * hidden.shape[1] if positions is None else positions.numel())
        return plainly(hidden, positions)

    monkeypatch.setattr(model.model.denoiser, "scores", scores)
    drawn(model, FIVE)
    assert counts == [6 * left for left in (5, 4, 3, 2, 1)]
    counts.clear()
    drawn(model, CONTROLS["contains"])  # what is exact looks at all places together
    assert len(set(counts)) == 1


@pytest.mark.parametrize(("name", "alone"), {"length": True, "avoid": False, "contains": False, "any": False}.items())
def test_which_controls_steer_places_independently(model, name, alone):
    chosen = settings_of("fast", "masked")
    plan = Plan(model, CONTROLS[name], chosen.sampler, chosen.guidance, 1)
    assert steers_places_independently(prepared_for(plan, [Draw(0, 0)], model.model.config.length)[1]) is alone


def test_counted_evidence_steers_places_independently():
    everyday = from_pretrained("everyday")
    pos = Pos(tags=["PRON", "VERB", "PUNCT"])
    chosen = settings_of("fast", "masked")
    plan = Plan(everyday, pos, chosen.sampler, chosen.guidance, 1)
    assert steers_places_independently(prepared_for(plan, [Draw(0, 0)], everyday.model.config.length)[1])
