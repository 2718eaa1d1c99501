import math

import pytest
import torch

from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.samplers import SAMPLERS, ddim, dpmpp_2m
from dlmctl.diffusion.schedule import Schedule
from dlmctl.sampling.walk import Step

# Unlike the sqrt schedule it has almost no noise at the first grid point, so the last step loses no variance.
SCHEDULE = Schedule("linear")


def gaussian_denoiser(variance: float):
    """The exact x_0 estimate for data from N(0, variance): every sampler must reproduce that variance."""

    def denoise(x, t):
        alphabar = SCHEDULE.alphabar(t).to(x).reshape(-1, 1, 1)
        return alphabar.sqrt() * variance / (alphabar * variance + 1 - alphabar) * x

    return denoise


@pytest.mark.parametrize(("name", "eta"), [("ancestral", 1.0), ("ddim", 0.0), ("ddim", 1.0), ("dpmpp_2m", 0.0)])
def test_reproduces_the_data_variance(name, eta):
    noise = SampleNoise([Draw(0, i) for i in range(8)])
    x = noise(torch.empty(8, 50, 20))
    times = SCHEDULE.times(400)
    out = SAMPLERS[name](gaussian_denoiser(0.25), x, times, SCHEDULE, noise, eta=eta)
    assert out.std().item() == pytest.approx(0.5, rel=0.06)


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2)])
def test_order_of_convergence(sampler, order):
    """Halving the steps of a p-th order solver multiplies its error by 2^p."""
    x = SampleNoise([Draw(1, i) for i in range(4)])(torch.empty(4, 20, 8)).double()

    def end(steps):
        times = torch.linspace(0.8, 0.2, steps + 1, dtype=torch.float64)
        return sampler(gaussian_denoiser(0.25), x, times, SCHEDULE, torch.zeros_like)

    exact = end(4096)
    coarse, fine = ((end(steps) - exact).abs().mean().item() for steps in (32, 64))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_step_is_seen_and_can_move_the_latent(name):
    seen: list[Step] = []

    def move(step):
        seen.append(step)
        return torch.full_like(step.x, 7.0) if step.s == 0 else None

    noise = SampleNoise([Draw(0, i) for i in range(2)])
    x = noise(torch.empty(2, 5, 4))
    eta = 0.0 if name == "dpmpp_2m" else 1.0
    out = SAMPLERS[name](gaussian_denoiser(1.0), x, SCHEDULE.times(6), SCHEDULE, noise, eta=eta, on_step=move)
    assert [step.number for step in seen] == list(range(6))
    assert seen[0].t == 1.0
    assert seen[-1].s == 0.0
    assert bool((out == 7.0).all())


def test_dpmpp_refuses_fresh_noise():
    with pytest.raises(ValueError, match="deterministic"):
        dpmpp_2m(gaussian_denoiser(1.0), torch.zeros(1, 2, 2), SCHEDULE.times(2), SCHEDULE, torch.zeros_like, eta=1.0)


def test_a_sample_draws_the_same_noise_in_any_batch():
    like = torch.empty(5, 6, 3)
    together = SampleNoise([Draw(3, i) for i in range(5)])(like)
    alone = SampleNoise([Draw(3, 3)])(like[:1])
    assert torch.equal(together[3], alone[0])
    assert not torch.equal(together[0], together[1])


def test_top_p_bounds_the_noise():
    noise = SampleNoise([Draw(0, i) for i in range(4)], top_p=0.5)(torch.empty(4, 200, 4))
    assert noise.abs().max().item() <= 0.5
    # A standard normal cut at 0.5 has this variance; redrawing, unlike clipping, leaves no mass at the bound.
    assert noise.std().item() == pytest.approx(math.sqrt(0.0806), rel=0.05)
