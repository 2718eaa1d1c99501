"""The steered estimates, with energies whose effect is known."""

from pathlib import Path

import pytest
import torch

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.prepared import Prepared
from dlmctl.diffusion.model import DiffusionLM
from dlmctl.errors import RecipeError
from dlmctl.generation.generate import generate
from dlmctl.recipe.settings import Guidance, SamplerSettings
from tests.conftest import tiny_config

QUICK = SamplerSettings(steps=4)


class Wish(Control):
    """Wants one word everywhere; rows in ``broken`` have a NaN energy."""

    name = "wish"
    Params = ControlParams

    def __init__(self, word, broken=(), sharpness=1.0):
        super().__init__()
        self.word, self.broken, self.sharpness = word, broken, sharpness

    def prepare(self, batch):
        return PreparedWish(self, [draw.sample in self.broken for draw in batch.draws])

    def check(self, params, words):
        return Check(words.count(self.word) / max(1, len(words)), self.word in words, "")


class PreparedWish(Prepared):
    def __init__(self, wish, broken):
        self.wish, self.broken = wish, torch.tensor(broken)

    def energy(self, state):
        wanted = state.vocabulary.encode([self.wish.word])[1]
        log_probs = (state.x @ state.embeddings.T).log_softmax(-1)
        energy = -self.wish.sharpness * log_probs[..., wanted].sum(1)
        return torch.where(self.broken, torch.tensor(torch.nan), energy)


class Ban(Control):
    """Never this word."""

    name = "ban"
    Params = ControlParams

    def __init__(self, word, id):
        super().__init__()
        self.word, self.id = word, id

    def prepare(self, batch):
        return PreparedBan(self.id)

    def check(self, params, words):
        return Check(float(self.word not in words), self.word not in words, "")


class PreparedBan(Prepared):
    exact = True

    def __init__(self, id):
        self.id = id

    def restrict(self, logits):
        logits = logits.clone()
        logits[..., self.id] = -torch.inf
        return logits


def share(result, word):
    return sum(sample.words.count(word) for sample in result) / max(1, sum(len(sample.words) for sample in result))


@pytest.mark.parametrize("method", ["logits", "latent", "langevin"])
def test_every_method_moves_the_latent_towards_the_energy(pretrained, method):
    # An untrained denoiser forgets the latent at the next step, so it is the first step that is looked at.
    guidance = Guidance(method=method, updates=3, scale=2.0, step_size=1.0)
    wanted = pretrained.model.embeddings[pretrained.tokenizer.encode(["river"])[1]].detach()

    def nearness(control):
        first = []
        generate(control, model=pretrained, samples=12, sampler=QUICK, guidance=guidance, on_step=first.append)
        return torch.cat([(step.x @ wanted).mean(1) for step in first if step.number == 0])

    assert bool((nearness(Wish("river")) > nearness(None)).all())


@pytest.mark.parametrize(("method", "at_estimate"), [("logits", True), ("denoiser", True), ("latent", False)])
def test_what_the_energy_sees(pretrained, method, at_estimate):
    seen = []

    class Spy(PreparedWish):
        def energy(self, state):
            seen.append((float(state.t.max()), torch.equal(state.x, state.x0)))
            return super().energy(state)

    control = Wish("river")
    control.prepare = lambda batch: Spy(control, [False] * len(batch))
    generate(control, model=pretrained, samples=1, sampler=QUICK, guidance=Guidance(method=method))
    assert seen
    assert all((t == 0 and same) == at_estimate for t, same in seen)


@pytest.mark.usefixtures("float64")
def test_a_nan_energy_stops_only_its_own_guidance(pretrained):
    free = generate(model=pretrained, samples=3, sampler=QUICK)
    whole = generate(Wish("river"), model=pretrained, samples=3, sampler=QUICK)
    result = generate(Wish("river", broken=[1]), model=pretrained, samples=3, sampler=QUICK)
    assert [sample.problem is None for sample in result] == [True, False, True]
    assert "wish was not a number at t = 1.00" in result.samples[1].problem
    assert result.samples[1].words == free.samples[1].words
    assert [result.samples[i].words for i in (0, 2)] == [whole.samples[i].words for i in (0, 2)]


def test_clip_keeps_a_steep_control_from_outweighing_another(pretrained):
    both = Wish("river") & Wish("bread", sharpness=1000.0)
    drowned = generate(both, model=pretrained, samples=8, sampler=QUICK, guidance=Guidance(clip=1e6))
    balanced = generate(both, model=pretrained, samples=8, sampler=QUICK, guidance=Guidance(clip=0.5))
    assert share(balanced, "river") > share(drowned, "river")


def test_restricted_words_never_appear(pretrained):
    free = generate(model=pretrained, samples=30, sampler=QUICK)
    word = max({word for sample in free for word in sample.words}, key=lambda w: share(free, w))
    banned = pretrained.tokenizer.encode([word])[1]
    for sampler in (QUICK, SamplerSettings(steps=4, rounding="l2")):
        assert share(generate(Ban(word, banned), model=pretrained, samples=30, sampler=sampler), word) == 0


def test_a_model_that_predicts_latents_is_guided_too(tokenizer):
    torch.manual_seed(0)
    model = DiffusionLM(tiny_config(len(tokenizer), objective="paper", self_conditioning=False))
    latents = Pretrained(model.eval(), tokenizer, Path())
    free = generate(model=latents, samples=4, sampler=QUICK)
    guided = generate(Wish("river"), model=latents, samples=4, sampler=QUICK, guidance=Guidance(step_size=1.0))
    assert [sample.words for sample in guided] != [sample.words for sample in free]
    with pytest.raises(RecipeError, match="predicts latents"):
        generate(Wish("river"), model=latents, samples=1, sampler=QUICK, guidance=Guidance(method="logits"))
