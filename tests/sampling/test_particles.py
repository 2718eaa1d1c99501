"""Particles, through the public API."""

from __future__ import annotations

import pytest
import torch

from controls import Contains, Length, Predicate
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.prepared import Prepared
from dlmctl.errors import RecipeError
from dlmctl.generation.diagnose import examine
from dlmctl.generation.generate import generate
from dlmctl.metrics.fluency import Fluency
from dlmctl.recipe.load import read_recipe
from dlmctl.recipe.settings import Guidance, SamplerSettings
from dlmctl.sampling import particles
from tests.diffusion.tiny_masked import TEXTS, TOKENIZER, Enumerated, one_by_one, tiny_masked

STRENGTH = 2.0


class _Alike(Prepared):
    """Wants the first and the last of three words to be the same: STRENGTH nats for texts where they are not."""

    def energy(self, state):
        words = state.word_log_probs.exp()
        return STRENGTH * (1 - (words[:, 1] * words[:, 3]).sum(-1))


class Alike(Control[ControlParams]):
    name = "alike"
    Params = ControlParams

    def prepare(self, batch):
        return _Alike()

    def check(self, params, words):
        return Check(float(words[0] == words[-1]), words[0] == words[-1], "first and last word")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Pretrained(tiny_masked(), TOKENIZER, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def wanted():
    """p(text) exp(-energy) of every text of three words, each written in its own order."""
    free = Enumerated(tiny_masked(), framed=True).drawn_in(one_by_one())
    held = torch.tensor([0.0 if text[0] == text[2] else -STRENGTH for text in TEXTS], dtype=torch.float64).exp() * free
    return free / free.sum(), held / held.sum()


class _Likes(Prepared):
    """Evidence alone: three nats for the first word of the vocabulary at every place."""

    def __init__(self, batch):
        self.evidence = torch.zeros(len(batch), batch.length, len(batch.vocabulary))
        self.evidence[:, 1:, TOKENIZER.vocabulary["ash"]] = 3.0


class Likes(Alike):
    name = "likes"

    def prepare(self, batch):
        return _Likes(batch)


def drawn(model, control, texts=1500, *, guided=0.0, **settings):
    walk = {"name": "random", "steps": None, "temperature": 1.0, "precision": "fp32"}
    sampler = SamplerSettings(**{**walk, **settings})
    guidance = Guidance(scale=guided, until=0.0, updates=1)
    options = {"samples": texts, "sampler": sampler, "guidance": guidance, "batch_size": 8192, "device": "cpu"}
    return [sample.words for sample in generate(control & Length(words=3), model=model, seed=4, **options)]


def frequencies(texts):
    ids = torch.tensor([[TOKENIZER.vocabulary[word] - 4 for word in words] for words in texts])
    return (ids * torch.tensor([9, 3, 1])).sum(1).bincount(minlength=len(TEXTS)).double() / len(texts)


def distance(one, other):
    """Total variation, in [0, 1]."""
    return float((one - other).abs().sum() / 2)


@pytest.mark.parametrize("guided", [0.0, 1.0])
def test_many_particles_draw_from_the_posterior(model, wanted, guided):
    free, held = wanted
    assert distance(free, held) > 0.25
    found = frequencies(drawn(model, Alike(), guided=guided, particles=12, resample_every=1))
    # The sampling error of so many texts is about 0.05.
    assert distance(found, held) < 0.1


def test_evidence_alone_is_a_reward(model):
    words = [
        sum(text.count("ash") for text in drawn(model, Likes(), 300, guided=1.0, particles=many)) for many in (1, 8)
    ]
    free = sum(text.count("ash") for text in drawn(model, Alike(), 300))
    assert words[1] > 2 * free
    assert abs(words[1] - words[0]) < 0.2 * words[0]


# With looks further apart than a text has steps, only the finished texts are rewarded.
@pytest.mark.parametrize("settings", [{"reward": "energy"}, {"reward": "score"}, {"resample_every": 9}])
def test_particles_satisfy_more(model, settings):
    satisfied = [
        sum(words[0] == words[-1] for words in drawn(model, Alike(), 200, **some))
        for some in ({}, {"particles": 8, **settings})
    ]
    assert satisfied[1] > satisfied[0] + 20


def test_a_text_does_not_depend_on_its_batch(model):
    few = drawn(model, Alike(), 6, particles=4)
    assert drawn(model, Alike(), 12, particles=4)[:6] == few


def test_exact_constraints_hold_for_every_particle(model):
    assert all("ash" in words for words in drawn(model, Contains("ash"), 40, particles=4))


def test_latents_have_particles_too(model_folder):
    options = {"model": model_folder, "samples": 5, "seed": 2, "preset": "fast", "device": "cpu"}
    control = Contains("river") & Length(words=6)
    found = {sample.text for sample in generate(control, sampler={"particles": 3, "steps": 6}, **options)}
    assert all("river" in text for text in found)
    assert found != {sample.text for sample in generate(control, sampler={"steps": 6}, **options)}
    latents = from_pretrained(model_folder)
    satisfied = [
        sum(words[0] == words[-1] for words in drawn(latents, Alike(), 40, name="auto", steps=6, **some))
        for some in ({}, {"particles": 8, "reward": "score"})
    ]
    assert satisfied[1] > satisfied[0] + 10
    with pytest.raises(RecipeError, match="draws none"):
        generate(control, sampler={"particles": 3, "name": "dpmpp_2m"}, **options)


def test_a_reward_of_controls_needs_one(model):
    sampler = SamplerSettings(particles=2, steps=None)
    with pytest.raises(RecipeError, match="comes from controls"):
        generate(model=model, samples=1, sampler=sampler, device="cpu")


def test_a_scorer_chooses_among_guided_texts(model, monkeypatch):
    """Ratios of the model's own draws to guided ones would undo the guidance."""
    monkeypatch.setattr(particles, "required_scorer", lambda pretrained: (None, None))
    monkeypatch.setattr(particles, "fluency_of", lambda scorer, texts, natural: [Fluency(1.0, "ash", 1.0)] * len(texts))
    alone, chosen = (
        sum(text.count("ash") for text in drawn(model, Likes(), 300, guided=1.0, **settings))
        for settings in ({}, {"particles": 8, "reward": "lm_score"})
    )
    assert abs(chosen - alone) < 0.2 * alone


def test_a_reward_of_energies_needs_a_control_that_guides(model):
    only_checks, options = Predicate(lambda text: True), {"model": model, "samples": 1, "device": "cpu"}
    with pytest.raises(RecipeError, match="comes from controls that guide, and these only check"):
        generate(only_checks, sampler={"particles": 2}, **options)
    for sampler in ({"particles": 2, "reward": "score"}, {"particles": 1}):
        assert generate(only_checks, sampler=sampler, **options).success == 1.0
    assert generate(only_checks & Alike(), sampler={"particles": 2}, **options)


def test_a_recipe_whose_controls_only_check_is_refused_with_its_line(model, tmp_path):
    (tmp_path / "own.py").write_text("def passes(text):\n    return True\n")
    given = f"controls:\n  - check: {tmp_path}/own.py:passes\nsampler:\n  particles: 2\n"
    recipe, file = read_recipe(given, "own.yaml")
    with pytest.raises(RecipeError, match=r"own.yaml:3: sampler.reward: the reward 'energy' comes from controls that"):
        examine(recipe, model, file)
