"""Uniform diffusion over three words, against everything enumerated; and texts by the code that users run."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from controls import Avoid, Contains, Infill, Length
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.diffusion.layout import Layout, stacked
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.uniform import UniformConfig, UniformLM, UniformWalk
from dlmctl.diffusion.walks import WALKS, WalkSettings
from dlmctl.errors import RecipeError
from dlmctl.evaluation.masked_nll import masked_likelihood
from dlmctl.generation.generate import generate
from dlmctl.recipe.presets import settings_of
from dlmctl.recipe.settings import SamplerSettings
from dlmctl.text.tokenizer import WordTokenizer
from tests.diffusion.tiny_masked import TOKENIZER, WORDS, tiny_masked

START, END = 0, 1
PAIRS = torch.tensor(list(product(WORDS, repeat=2)))
TEXT = (4, 6)


def tiny_uniform(tokenizer=TOKENIZER, **changes) -> UniformLM:
    masked = tiny_masked(**changes)
    torch.manual_seed(1)
    settings = {**masked.config.model_dump(), "family": "uniform", "vocab_size": len(tokenizer)}
    return UniformLM(UniformConfig(**settings, special=[3, 0, 2, 1])).eval()


@pytest.fixture(scope="module")
def model() -> UniformLM:
    model = tiny_uniform()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0 if weight.dim() == 2 else 1.0)
    return model.double()


def framed(texts: torch.Tensor) -> torch.Tensor:
    start, end = (torch.full((len(texts), 1), number) for number in (START, END))
    return torch.cat([start, texts, end], 1)


def noisy(text: torch.Tensor, alpha: float) -> torch.Tensor:
    """q(x_t given x_0) of a word as probabilities ``[..., 3]`` of the three, for clean probabilities ``[..., 3]``."""
    return alpha * text + (1 - alpha) / 3


def posterior(z: torch.Tensor, clean: torch.Tensor, t: float, s: float) -> torch.Tensor:
    """q(x_s given x_t = z, x_0) ``[..., 3]`` by Bayes' rule, for clean probabilities ``[..., 3]``."""
    step = noisy(torch.nn.functional.one_hot(z, 3).double(), (1 - t) / (1 - s))
    found = step * noisy(clean, 1 - s)
    return found / found.sum(-1, keepdim=True)


def chances(model: UniformLM, pairs: torch.Tensor, t: float) -> torch.Tensor:
    with torch.no_grad():
        return model.logits_at(framed(pairs), torch.full((len(pairs),), t).double())[:, 1:-1, 4:7].softmax(-1)


def test_the_bound_is_that_of_a_process_of_very_many_steps(model):
    """The sum of the KL of every step, over all noisy texts, against the integral of the continuous one's draws."""
    steps, exact, found = 500, 0.0, 0.0
    clean = torch.nn.functional.one_hot(torch.tensor(TEXT) - 4, 3).double()
    ids = framed(torch.tensor([TEXT])).expand(9, -1)
    places = torch.tensor([False, True, True, False]).expand(9, -1)
    for number in range(1, steps + 1):
        t, s = number / steps, (number - 1) / steps
        true = posterior(PAIRS - 4, clean.expand(9, 2, 3), t, s)
        own = posterior(PAIRS - 4, chances(model, PAIRS, t), t, s)
        exact += float((weights(clean, t)[:, None] * torch.xlogy(true, true / own).sum(-1)).sum())
        middle = (t + s) / 2
        order = torch.nn.functional.pad(middle * (PAIRS - 3.5) / 3, (1, 1)).double()  # which gives all noisy texts
        with torch.no_grad():
            nats = model.bound_nats(ids, places, torch.full((9,), middle).double(), order)
        assert (nats > -1e-9).all()
        found += float((weights(clean, middle) * nats).sum()) / steps
    assert found == pytest.approx(exact, rel=0.01)


def weights(clean: torch.Tensor, t: float) -> torch.Tensor:
    """How likely each of ``PAIRS`` is at a time."""
    return noisy(clean, 1 - t).gather(1, PAIRS.T - 4).prod(0)


def test_a_step_draws_from_the_posterior_of_its_estimate(model):
    rows, (t, s) = 12_000, (0.7, 0.4)
    layouts = stacked([Layout(4, 2)] * rows, torch.device("cpu"))
    noise = SampleNoise([Draw(0, row) for row in range(rows)])
    settings = WalkSettings(model.mask_id)
    family = UniformWalk(model, TOKENIZER, WALKS["ancestral"], settings, [])
    x = family.start(layouts, noise)
    shares = torch.stack([(x[:, 1:-1] == word).double().mean(0) for word in WORDS])
    torch.testing.assert_close(shares, torch.full((3, 2), 1 / 3).double(), atol=0.02, rtol=0)
    x = framed(torch.tensor([TEXT])).expand(rows, -1)
    times = [torch.full((rows,), value, dtype=torch.float64) for value in (t, s)]
    one = family.predict(x, times[0], None, None)
    assert one.logits[0, 0].argmax() == START  # what is no word stands
    moved = family.step(x, one, *times, noise).x
    wanted = posterior(torch.tensor([TEXT]) - 4, chances(model, torch.tensor([TEXT]), t), t, s)[0]
    found = torch.stack([(moved[:, 1:-1] == word).double().mean(0) for word in WORDS], 1)
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0)
    last = family.step(x, one, times[1], torch.zeros(rows), noise).x
    assert torch.equal(last, one.logits.argmax(-1))


def test_noise_replaces_the_asked_share_of_the_words_by_all_words_alike(model):
    rows = 6_000
    ids = framed(torch.tensor([TEXT])).expand(rows, -1)
    places = torch.tensor([False, True, False, False]).expand(rows, -1)
    order = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = model.noised(ids, places, torch.full((rows, 1), 0.6), order)
    assert torch.equal(found[:, [0, 2, 3]], ids[:, [0, 2, 3]])
    shares = torch.stack([(found[:, 1] == word).float().mean() for word in WORDS])
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.2, 0.2]), atol=0.03, rtol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Pretrained:
    words = WordTokenizer.from_corpus(["a red boat sinks near the old river .".split()] * 2, min_count=1)
    folder = tmp_path_factory.mktemp("uniform")
    save_pretrained(tiny_uniform(words, sentence_lengths=[0] * 5 + [2, 3, 4]), words, folder)
    return from_pretrained(folder)


def drawn(saved, control=None, **changes):
    sampler = {**settings_of("fast", "uniform").sampler.model_dump(), "precision": "fp32", "steps": 12}
    settings = SamplerSettings(**{**sampler, **changes.pop("sampler", {})})
    return list(generate(control, model=saved, samples=6, seed=4, device="cpu", sampler=settings, **changes))


def test_exact_controls_hold_and_a_seed_means_the_same_text_in_any_company(saved):
    assert type(saved.model) is UniformLM
    texts = drawn(saved)
    assert [text.words for text in drawn(saved, batch_size=1)] == [text.words for text in texts]
    assert len({tuple(text.words) for text in texts}) > 3
    assert all(text.passed for text in drawn(saved, Contains(words=["old river"]) & Avoid(words=["boat"])))
    assert all(len(text.words) == 9 for text in drawn(saved, Length(words=9)))
    assert all(text.words[0] == "red" for text in drawn(saved, Infill("red ___{2,5} river .")))
    assert all(text.passed for text in drawn(saved, Contains(words=["sinks"]), sampler={"particles": 2}))


def test_what_a_uniform_model_does_not_have_is_refused(saved):
    with pytest.raises(RecipeError, match="no other sampler and no blocks"):
        drawn(saved, sampler={"name": "entropy"})
    with pytest.raises(ValueError, match="lengths: data"):
        UniformConfig(**{**saved.model.config.model_dump(), "lengths": "model"})


def test_its_bound_is_measured_as_that_of_a_masked_model(saved):
    rows = [saved.tokenizer.encode("a red boat sinks .".split())] * 40
    found = masked_likelihood(saved, rows, repeats=4)
    assert found.nats_with_length is not None
    assert 0 < found.standard_error < 0.2 * found.nats_given_length
