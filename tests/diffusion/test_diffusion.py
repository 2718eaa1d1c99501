"""The Gaussian model against closed forms, and both objectives on a handful of sentences."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from dlmctl.diffusion.bound import likelihood_bound
from dlmctl.diffusion.layout import Layout, batch_layouts
from dlmctl.diffusion.model import DiffusionLM, ModelConfig
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.objectives import cross_entropy_loss, paper_loss
from dlmctl.diffusion.process import one_step, posterior, q_sample, x0_from_noise
from dlmctl.diffusion.samplers import ancestral
from dlmctl.diffusion.schedule import Schedule
from dlmctl.models.transformer import TransformerConfig
from dlmctl.sampling.walk import walk
from tests.diffusion.unsteered import Unsteered

IDS = torch.tensor([[0, 4, 5, 6, 1, 3], [0, 7, 8, 5, 9, 1], [0, 10, 6, 1, 3, 3], [0, 9, 8, 7, 6, 1]])
LENGTH, DIM = 6, 8


def config(**changes):
    sizes = TransformerConfig(hidden=32, layers=1, heads=2, dropout=0.0, max_length=LENGTH, time_channels=16)
    return ModelConfig(**{"vocab_size": 11, "length": LENGTH, "embed_dim": DIM, "denoiser": sizes, **changes})


def untrained(**changes):
    torch.manual_seed(0)
    return DiffusionLM(config(**changes))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(steps, **changes):
    """A model after ``steps`` steps on the four sentences."""
    model = untrained(**changes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        ids = IDS.repeat(8, 1)
        t = (one_step(model.schedule) + (1 - one_step(model.schedule)) * torch.rand(len(ids))).double()
        noise, noise_x0 = torch.randn(2, *ids.shape, DIM)
        if model.predicts_words:
            loss = cross_entropy_loss(model, ids, t, noise)["loss"].mean()
        else:
            loss = paper_loss(model, ids, t, noise, noise_x0)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def overfit():
    return trained(250)


@pytest.fixture(scope="module")
def overfit_paper():
    return trained(250, objective="paper", self_conditioning=False, schedule_steps=100)


@torch.no_grad()
def test_rounding_by_products_adds_a_bias_where_the_model_predicts_latents():
    model = untrained(objective="paper")
    x = normal(1, LENGTH, DIM)
    before = model.rounding_logits(x, "dot")
    model.rounding_bias[5] = 1e3
    bias = torch.zeros(11).index_fill(0, torch.tensor(5), 1e3)
    torch.testing.assert_close(model.rounding_logits(x, "dot"), before + bias)


@torch.no_grad()
def restored(model, t):
    """The share of words that the model restores from x_t."""
    times = torch.full((len(IDS),), t, dtype=torch.float64)
    x_t = q_sample(model.schedule, model.embed(IDS), times, normal(*IDS.shape, DIM))
    predicted = model.predict(x_t, times)
    return float((model.token_ids(predicted.x0, predicted.logits) == IDS).float().mean())


@pytest.mark.parametrize("name", ["overfit", "overfit_paper"])
def test_training_restores_the_words(name, request):
    model = request.getfixturevalue(name)
    assert restored(model, 0.05) > 0.9
    assert restored(model, 0.3) > 0.7
    fresh = untrained(**{**model.config.model_dump(), "denoiser": model.config.denoiser})
    assert restored(fresh, 0.3) < 0.5


@pytest.mark.parametrize("name", ["overfit", "overfit_paper"])
def test_the_reverse_process_of_a_trained_model_ends_in_its_sentences(name, request):
    model = request.getfixturevalue(name)
    layouts = batch_layouts([Layout(LENGTH, None)] * 16, torch.device("cpu"))
    noise = SampleNoise([Draw(3, sample) for sample in range(16)])
    family = Unsteered(model, ancestral(model.schedule))
    with torch.no_grad():
        x = walk(family, family, layouts, model.schedule.times(50), noise)
    sentences = {tuple(row) for row in IDS.tolist()}
    texts = [tuple(row) for row in model.rounding_logits(x, "l2").argmax(-1).tolist()]
    assert sum(row in sentences for row in texts) >= 8
    assert len(set(texts) & sentences) >= 2  # not always the same one


def test_q_sample_has_the_mean_and_variance_of_its_time():
    schedule, t = Schedule("cosine"), torch.tensor([0.3, 0.8], dtype=torch.float64)
    x_t = q_sample(schedule, torch.full((2, 200, 200), 2.0), t, normal(2, 200, 200))
    alphabar = schedule.alphabar(t).float()
    torch.testing.assert_close(x_t.mean((1, 2)), 2 * alphabar.sqrt(), atol=0.02, rtol=0)
    torch.testing.assert_close(x_t.var((1, 2)), 1 - alphabar, atol=0.02, rtol=0)


def test_the_posterior_is_bayes_rule():
    """q(x_s | x_t, x_0) from the product of the two Gaussians q(x_s | x_0) and q(x_t | x_s)."""
    schedule, t, s = Schedule("sqrt"), torch.tensor([0.7]).double(), torch.tensor([0.4]).double()
    a_t, a_s = float(schedule.alphabar(t)), float(schedule.alphabar(s))
    x0, x_t = 1.3, -0.4
    mean, variance = posterior(schedule, torch.full((1, 1, 1), x0), torch.full((1, 1, 1), x_t), t, s)
    alpha = a_t / a_s
    precision = 1 / (1 - a_s) + alpha / (1 - alpha)
    assert float(variance) == pytest.approx(1 / precision, rel=1e-5)
    assert float(mean) == pytest.approx(
        (math.sqrt(a_s) * x0 / (1 - a_s) + math.sqrt(alpha) * x_t / (1 - alpha)) / precision, rel=1e-5
    )


@pytest.mark.parametrize("name", ["linear", "cosine", "sqrt", "trunc_cos", "trunc_lin", "pw_lin"])
@pytest.mark.parametrize("steps", [None, 100])
def test_x0_comes_back_from_noise(name, steps):
    schedule = Schedule(name, steps)
    t = torch.tensor([0.01, 0.3, 0.6], dtype=torch.float64)
    x0, noise = normal(3, 4, 5).double(), normal(3, 4, 5, seed=1).double()
    x_t = q_sample(schedule, x0, t, noise)
    torch.testing.assert_close(x0_from_noise(schedule, x_t, t, noise), x0)


@pytest.mark.parametrize("name", ["linear", "cosine", "sqrt", "trunc_cos", "trunc_lin", "pw_lin"])
def test_the_inverse_is_finite_where_no_signal_is_left(name):
    schedule, t, x = Schedule(name), torch.ones(1, dtype=torch.float64), normal(1, 4, 5)
    assert x0_from_noise(schedule, x, t, x).isfinite().all()


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_the_paper_loss_is_zero_mse_for_a_perfect_network(prediction, monkeypatch):
    model = untrained(objective="paper", prediction=prediction, self_conditioning=False, schedule_steps=50)
    schedule, t = model.schedule, torch.tensor([0.02, 0.5, 0.3, 1.0], dtype=torch.float64)
    noise, noise_x0 = normal(*IDS.shape, DIM), normal(*IDS.shape, DIM, seed=1)
    spread = (1 - schedule.alphabar(1 / 50)).sqrt().float()
    x0 = (model.embed(IDS) + spread * noise_x0).detach()
    answer = {"x0": x0, "epsilon": noise}[prediction]
    monkeypatch.setattr(model.denoiser, "forward", lambda x, time: answer)
    mse = paper_loss(model, IDS, t, noise, noise_x0)["mse"]
    # At the first step the target is the embedding itself, of which x_0 is a noisy copy.
    assert mse[0].item() == pytest.approx(((x0 - model.embed(IDS))[0].square().mean()).item(), rel=1e-3)
    torch.testing.assert_close(mse[1:], torch.zeros(3), atol=1e-5, rtol=0)


def test_the_paper_loss_adds_prior_and_rounding_terms():
    model = untrained(objective="paper", self_conditioning=False)
    noise = normal(*IDS.shape, DIM)
    parts = paper_loss(model, IDS, torch.full((4,), 0.5).double(), noise, torch.zeros_like(noise))
    clean = model.embed(IDS)
    prior = float(model.schedule.alphabar(1.0)) * clean.square().mean((1, 2))
    words = F.cross_entropy(model.rounding_logits(clean).transpose(1, 2), IDS, reduction="none").mean(1)
    torch.testing.assert_close(parts["loss"] - parts["mse"], prior + words)


def test_embeddings_of_the_word_objective_have_one_norm():
    model = untrained()
    torch.testing.assert_close(model.embeddings.norm(dim=-1), torch.full((11,), math.sqrt(DIM)))
    prediction = model.predict(normal(4, LENGTH, DIM), torch.full((4,), 0.5))
    torch.testing.assert_close(prediction.x0, prediction.logits.softmax(-1) @ model.embeddings)


def test_every_rounding_finds_the_word_of_its_own_embedding():
    for model in (untrained(), untrained(objective="paper")):
        clean = model.embed(IDS)
        for rounding in ("l2", "cosine"):
            assert torch.equal(model.token_ids(clean, rounding=rounding), IDS)
        assert torch.equal(model.clamp(clean + 1e-3), clean)
    assert torch.equal(untrained().token_ids(untrained().embed(IDS), rounding="dot"), IDS)


def test_self_conditioning_uses_the_previous_estimate():
    x, t = normal(4, LENGTH, DIM), torch.full((4,), 0.5)
    model = untrained(self_conditioning=True)
    without, with_zeros = model.predict(x, t).x0, model.predict(x, t, torch.zeros_like(x)).x0
    assert torch.equal(without, with_zeros)
    assert not torch.allclose(model.predict(x, t, x).x0, without)


def noise_source(seed):
    """A function that returns noise shaped like a latent, from one stream."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator)


def test_the_bound_of_a_trained_model_is_smaller(overfit, overfit_paper):
    for model in (overfit, overfit_paper):
        fresh = untrained(**{**model.config.model_dump(), "denoiser": model.config.denoiser}).eval()
        bounds = [likelihood_bound(m, IDS, 20, noise_source(0)) for m in (fresh, model)]
        assert all(bound.total.isfinite().all() for bound in bounds)
        assert bounds[1].total.mean() < 0.5 * bounds[0].total.mean()
        assert bounds[1].diffusion.shape == (19, 4, LENGTH)
    assert bounds[1].rounding_nats.mean() < math.log(11)  # better than uniform


def test_the_bound_is_above_the_entropy_of_the_data(overfit):
    """Four equally likely sentences cost log 4 on average, whatever the model."""
    totals = [likelihood_bound(overfit, IDS, 100, noise_source(seed)).total for seed in range(8)]
    assert torch.stack(totals).mean() > math.log(4)


def test_the_bound_agrees_with_its_terms_computed_from_gaussians(overfit):
    """The prior and each step as the KL of explicit normal distributions, on the same latents."""
    steps = 5
    bound = likelihood_bound(overfit, IDS, steps, noise_source(4))
    source, schedule = torch.Generator().manual_seed(4), overfit.schedule
    clean, times = overfit.embed(IDS).detach(), schedule.times(steps).tolist()

    def gaussian(mean, variance):
        return torch.distributions.Normal(mean, variance.sqrt().expand_as(mean))

    def kl(p, q):
        return torch.distributions.kl_divergence(p, q).sum((1, 2))

    end = schedule.alphabar(1.0).float()
    prior = kl(gaussian(end.sqrt() * clean, 1 - end), gaussian(torch.zeros_like(clean), torch.ones(())))
    torch.testing.assert_close(bound.prior.sum(1), prior, rtol=1e-3, atol=1e-3)
    for step, (t_value, s_value) in enumerate(pairwise(times[:-1])):
        t, s = (torch.full((4,), value, dtype=torch.float64) for value in (t_value, s_value))
        x_t = q_sample(schedule, clean, t, torch.randn(clean.shape, generator=source))
        with torch.no_grad():
            estimate = overfit.predict(x_t, t, overfit.predict(x_t, t).x0).x0
        (q_mean, variance), (p_mean, _) = (posterior(schedule, x0, x_t, t, s) for x0 in (clean, estimate))
        expected = kl(gaussian(q_mean, variance), gaussian(p_mean, variance)).to(clean)
        torch.testing.assert_close(bound.diffusion[step].sum(1), expected, rtol=1e-3, atol=1e-3)


def test_picked_steps_are_those_of_the_whole_process(overfit):
    """With the same noise for every step, a step costs the same whether others are computed or not."""
    fixed_noise = normal(*IDS.shape, DIM)
    whole = likelihood_bound(overfit, IDS, 6, lambda like: fixed_noise)
    picked = torch.tensor([[4, 0, 1, 2], [3, 3, 0, 4]])
    partial = likelihood_bound(overfit, IDS, 6, lambda like: fixed_noise, picked)
    for k, row in enumerate(picked.tolist()):
        for b, step in enumerate(row):
            torch.testing.assert_close(partial.diffusion[k, b], whole.diffusion[step, b], rtol=1e-4, atol=1e-5)
            assert partial.times[k, b] == pytest.approx(1 - step / 6)
    torch.testing.assert_close(partial.rounding_nats, whole.rounding_nats)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 64}, "length is 64, but the denoiser has max_length 6"),
        ({"schedule": "linear", "schedule_steps": 10}, "more than 20 steps"),
        ({"vocab_size": 3}, "greater than 4"),
        ({"sentence_lengths": [1, -1]}, "greater than or equal to 0"),
        ({"objective": "mse"}, "cross_entropy"),
        ({"embed": 8}, "Extra inputs"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
