import math
from typing import get_args

import numpy as np
import pytest
import torch

from dlmctl.diffusion.schedule import ALPHABAR_FLOOR, MAX_BETA, Schedule, ScheduleName, betas

NAMES = get_args(ScheduleName)
WITH_A_LIMIT = ["linear", "cosine", "sqrt", "trunc_cos"]


@pytest.mark.parametrize("name", NAMES)
def test_alphabar_falls_from_one_to_almost_nothing(name):
    for steps in (None, 2000):
        alphabar = Schedule(name, steps).alphabar(torch.linspace(0, 1, 4001, dtype=torch.float64))
        assert alphabar[0] == 1
        assert (alphabar.diff() < 0).all()
        assert 0 < alphabar[-1] < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_continuous_schedule_stays_above_the_floor(name):
    alphabar = Schedule(name).alphabar(torch.linspace(0, 1, 1001))
    assert alphabar.min() >= ALPHABAR_FLOOR * (1 - 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_discrete_schedule_is_the_product_of_its_betas(name):
    schedule, variances = Schedule(name, 50 if name in WITH_A_LIMIT else 2000), betas(name, 50)
    if name not in WITH_A_LIMIT:
        variances = betas(name, 2000)
    grid = torch.arange(1, len(variances) + 1, dtype=torch.float64) / len(variances)
    np.testing.assert_allclose(schedule.alphabar(grid).numpy(), np.cumprod(1 - variances), rtol=1e-9)
    assert ((variances > 0) & (variances <= MAX_BETA)).all()


def test_formulas_by_hand():
    sqrt, cosine, linear = (Schedule(name) for name in ("sqrt", "cosine", "linear"))
    for t in (0.1, 0.5, 0.9):
        assert float(sqrt.alphabar(t)) == pytest.approx((1 - math.sqrt(t + 1e-4)) / (1 - math.sqrt(1e-4)), abs=2e-4)
        start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert float(cosine.alphabar(t)) == pytest.approx(
            math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / start, abs=2e-4
        )
        # The integral of beta(t) from 1e-4 to 0.02 over 1000 steps.
        assert float(linear.alphabar(t)) == pytest.approx(math.exp(-(0.1 * t + 19.9 * t**2 / 2)), rel=2e-2, abs=2e-5)


def test_a_continuous_schedule_is_the_limit_of_the_discrete_ones():
    grid = torch.tensor([0.25, 0.5, 0.75])
    for name in WITH_A_LIMIT:
        torch.testing.assert_close(
            Schedule(name).alphabar(grid), Schedule(name, 4000).alphabar(grid), rtol=1e-2, atol=1e-3
        )


def test_network_time_of_a_discrete_schedule_matches_the_original():
    discrete = Schedule("sqrt", 200)
    k = torch.tensor([0, 7, 199])
    torch.testing.assert_close(discrete.network_time((k.double() + 1) / 200), k * 1000.0 / 200)
    assert float(Schedule("sqrt").network_time(0.25)) == 250


def test_times_descend_to_clean_text():
    schedule = Schedule()
    assert schedule.times(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert schedule.times(3, last=0.2).tolist() == pytest.approx([1, 0.6, 0.2, 0])
    assert schedule.times(3, last=0.2, spacing=2).tolist() == pytest.approx([1, 0.8, 0.2, 0])
    assert schedule.times(2, spacing=2).tolist() == pytest.approx([1, 0.75, 0])
    assert schedule.times(1, last=0.2).tolist() == [1, 0]
    with pytest.raises(ValueError, match="at least one step"):
        schedule.times(0)


def test_respacing_visits_the_grid_of_the_discrete_process():
    assert Schedule("sqrt", 10).respaced_times(4).tolist() == pytest.approx([1.0, 0.7, 0.4, 0.1, 0])
    with pytest.raises(ValueError, match="discrete"):
        Schedule("sqrt").respaced_times(4)


@pytest.mark.parametrize(("name", "steps"), [("linear", 10), ("trunc_lin", 20), ("pw_lin", 20)])
def test_too_few_steps_are_refused(name, steps):
    with pytest.raises(ValueError, match="steps"):
        betas(name, steps)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="trunc_cos"):
        betas("square", 10)
