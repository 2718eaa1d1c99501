import math

import pytest
import torch

from dlmctl.diffusion.family import Prediction
from dlmctl.diffusion.gaussian import Gaussian
from dlmctl.diffusion.noise import Draw, SampleNoise
from dlmctl.diffusion.samplers import SAMPLERS, ddim, dpmpp_2m
from dlmctl.diffusion.schedule import Schedule
from dlmctl.sampling.walk import Step, walk

# Unlike the sqrt schedule it has almost no noise at the first grid point, so the last step loses no variance.
SCHEDULE = Schedule("linear")


class Known(Gaussian):
    """The Gaussian family from a given state, steered by the exact x_0 estimate for data from N(0, variance).

    Every sampler must reproduce this variance.
    """

    def __init__(self, rule, x, variance):
        self.rule, self.x, self.variance = rule, x, variance

    def start(self, layouts, noise):
        return self.x

    def __call__(self, x_t, t):
        alphabar = SCHEDULE.alphabar(t).to(x_t).reshape(-1, 1, 1)
        x0 = alphabar.sqrt() * self.variance / (alphabar * self.variance + 1 - alphabar) * x_t
        return Prediction(lambda: x0)

    def after(self, moved, s):
        return moved.x


def walked(rule, x, times, noise, variance=0.25, on_step=None):
    known = Known(rule, x, variance)
    return walk(known, known, None, times, noise, on_step)


@pytest.mark.parametrize(("name", "eta"), [("ancestral", 1.0), ("ddim", 0.0), ("ddim", 1.0), ("dpmpp_2m", 0.0)])
def test_reproduces_the_data_variance(name, eta):
    noise = SampleNoise([Draw(0, i) for i in range(8)])
    x = noise(torch.empty(8, 50, 20))
    out = walked(SAMPLERS[name](SCHEDULE, eta), x, SCHEDULE.times(400), noise)
    assert out.std().item() == pytest.approx(0.5, rel=0.06)


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2)])
def test_order_of_convergence(sampler, order):
    """Halving the steps of a p-th order solver multiplies its error by 2^p."""
    x = SampleNoise([Draw(1, i) for i in range(4)])(torch.empty(4, 20, 8)).double()

    def end(steps):
        times = torch.linspace(0.8, 0.2, steps + 1, dtype=torch.float64)
        return walked(sampler(SCHEDULE), x, times, torch.zeros_like)

    exact = end(4096)
    coarse, fine = ((end(steps) - exact).abs().mean().item() for steps in (32, 64))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_on_step_sees_every_step_and_can_change_the_latent(name):
    seen: list[Step] = []

    def move(step):
        seen.append(step)
        return torch.full_like(step.x, 7.0) if step.s == 0 else None

    noise = SampleNoise([Draw(0, i) for i in range(2)])
    x = noise(torch.empty(2, 5, 4))
    rule = SAMPLERS[name](SCHEDULE, 0.0 if name == "dpmpp_2m" else 1.0)
    out = walked(rule, x, SCHEDULE.times(6), noise, variance=1.0, on_step=move)
    assert [step.number for step in seen] == list(range(6))
    assert {step.steps for step in seen} == {6}
    assert seen[0].t == 1.0
    assert seen[-1].s == 0.0
    assert bool((out == 7.0).all())


def test_dpmpp_refuses_noise():
    with pytest.raises(ValueError, match="deterministic"):
        dpmpp_2m(SCHEDULE, 1.0)


def test_a_rule_of_dpmpp_serves_one_walk():
    """It stores the previous estimate, so each walk needs a new rule."""
    x, times = torch.randn(2, 5, 4, dtype=torch.float64), SCHEDULE.times(6)
    runs = [walked(dpmpp_2m(SCHEDULE), x, times, torch.zeros_like) for _ in range(2)]
    assert torch.equal(*runs)


def test_a_sample_draws_the_same_noise_in_any_batch():
    like = torch.empty(5, 6, 3)
    together = SampleNoise([Draw(3, i) for i in range(5)])(like)
    alone = SampleNoise([Draw(3, 3)])(like[:1])
    assert torch.equal(together[3], alone[0])
    assert not torch.equal(together[0], together[1])


def test_top_p_bounds_the_noise():
    noise = SampleNoise([Draw(0, i) for i in range(4)], top_p=0.5)(torch.empty(4, 200, 4))
    assert noise.abs().max().item() <= 0.5
    # The variance of a standard normal truncated at 0.5; clipping would leave mass at the bound.
    assert noise.std().item() == pytest.approx(math.sqrt(0.0806), rel=0.05)
