"""Uniform diffusion over three words against full enumeration, and texts from the public generation code."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from controls import Avoid, Contains, Infill, Length
from dlmctl.checkpoint.pretrained import Pretrained, from_pretrained, save_pretrained
from dlmctl.diffusion.layout import Layout, batch_layouts
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
    """q(x_t | x_0) of a word, as probabilities ``[..., 3]`` of the three, for clean probabilities ``[..., 3]``."""
    return alpha * text + (1 - alpha) / 3


def posterior(z: torch.Tensor, clean: torch.Tensor, t: float, s: float) -> torch.Tensor:
    """q(x_s | x_t = z, x_0) ``[..., 3]`` by Bayes' rule, for clean probabilities ``[..., 3]``."""
    likelihood = noisy(torch.nn.functional.one_hot(z, 3).double(), (1 - t) / (1 - s))
    joint = likelihood * noisy(clean, 1 - s)
    return joint / joint.sum(-1, keepdim=True)


def clean_probs(model: UniformLM, pairs: torch.Tensor, t: float) -> torch.Tensor:
    with torch.no_grad():
        return model.logits_at(framed(pairs), torch.full((len(pairs),), t).double())[:, 1:-1, 4:7].softmax(-1)


def test_the_bound_is_that_of_a_process_of_very_many_steps(model):
    """The sum of the KL over all steps and noisy texts, against the integral of the continuous-time bound."""
    steps, exact, bound = 500, 0.0, 0.0
    clean = torch.nn.functional.one_hot(torch.tensor(TEXT) - 4, 3).double()
    ids = framed(torch.tensor([TEXT])).expand(9, -1)
    places = torch.tensor([False, True, True, False]).expand(9, -1)
    for step in range(1, steps + 1):
        t, s = step / steps, (step - 1) / steps
        true = posterior(PAIRS - 4, clean.expand(9, 2, 3), t, s)
        predicted = posterior(PAIRS - 4, clean_probs(model, PAIRS, t), t, s)
        exact += float((weights(clean, t)[:, None] * torch.xlogy(true, true / predicted).sum(-1)).sum())
        middle = (t + s) / 2
        order = torch.nn.functional.pad(middle * (PAIRS - 3.5) / 3, (1, 1)).double()  # yields all noisy texts
        with torch.no_grad():
            nats = model.bound_nats(ids, places, torch.full((9,), middle).double(), order)
        assert (nats > -1e-9).all()
        bound += float((weights(clean, middle) * nats).sum()) / steps
    assert bound == pytest.approx(exact, rel=0.01)


def weights(clean: torch.Tensor, t: float) -> torch.Tensor:
    """The probability of each of ``PAIRS`` at a time."""
    return noisy(clean, 1 - t).gather(1, PAIRS.T - 4).prod(0)


def test_a_step_draws_from_the_posterior_of_its_estimate(model):
    rows, (t, s) = 12_000, (0.7, 0.4)
    layouts = batch_layouts([Layout(4, 2)] * rows, torch.device("cpu"))
    noise = SampleNoise([Draw(0, row) for row in range(rows)])
    settings = WalkSettings(model.mask_id)
    family = UniformWalk(model, TOKENIZER, WALKS["ancestral"], settings, [])
    x = family.start(layouts, noise)
    shares = torch.stack([(x[:, 1:-1] == word).double().mean(0) for word in WORDS])
    torch.testing.assert_close(shares, torch.full((3, 2), 1 / 3).double(), atol=0.02, rtol=0)
    x = framed(torch.tensor([TEXT])).expand(rows, -1)
    times = [torch.full((rows,), value, dtype=torch.float64) for value in (t, s)]
    estimate = family.predict(x, times[0], None, None)
    assert estimate.logits[0, 0].argmax() == START  # special tokens are fixed
    moved = family.step(x, estimate, *times, noise).x
    expected = posterior(torch.tensor([TEXT]) - 4, clean_probs(model, torch.tensor([TEXT]), t), t, s)[0]
    frequencies = torch.stack([(moved[:, 1:-1] == word).double().mean(0) for word in WORDS], 1)
    torch.testing.assert_close(frequencies, expected, atol=0.02, rtol=0)
    last = family.step(x, estimate, times[1], torch.zeros(rows), noise).x
    assert torch.equal(last, estimate.logits.argmax(-1))


def test_noise_replaces_the_requested_share_of_words_uniformly(model):
    rows = 6_000
    ids = framed(torch.tensor([TEXT])).expand(rows, -1)
    places = torch.tensor([False, True, False, False]).expand(rows, -1)
    order = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noised = model.noised(ids, places, torch.full((rows, 1), 0.6), order)
    assert torch.equal(noised[:, [0, 2, 3]], ids[:, [0, 2, 3]])
    shares = torch.stack([(noised[:, 1] == word).float().mean() for word in WORDS])
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


def test_exact_controls_hold_and_a_seed_gives_the_same_text_in_any_batch(saved):
    assert type(saved.model) is UniformLM
    texts = drawn(saved)
    assert [text.words for text in drawn(saved, batch_size=1)] == [text.words for text in texts]
    assert len({tuple(text.words) for text in texts}) > 3
    assert all(text.passed for text in drawn(saved, Contains(words=["old river"]) & Avoid(words=["boat"])))
    assert all(len(text.words) == 9 for text in drawn(saved, Length(words=9)))
    assert all(text.words[0] == "red" for text in drawn(saved, Infill("red ___{2,5} river .")))
    assert all(text.passed for text in drawn(saved, Contains(words=["sinks"]), sampler={"particles": 2}))


def test_unsupported_settings_of_a_uniform_model_are_refused(saved):
    with pytest.raises(RecipeError, match="no other sampler and no blocks"):
        drawn(saved, sampler={"name": "entropy"})
    with pytest.raises(ValueError, match="lengths: data"):
        UniformConfig(**{**saved.model.config.model_dump(), "lengths": "model"})


def test_its_bound_is_measured_as_that_of_a_masked_model(saved):
    rows = [saved.tokenizer.encode("a red boat sinks .".split())] * 40
    likelihood = masked_likelihood(saved, rows, repeats=4)
    assert likelihood.nats_with_length is not None
    assert 0 < likelihood.standard_error < 0.2 * likelihood.nats_given_length
