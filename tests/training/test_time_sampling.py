import pytest
import torch

from dlmctl.training.time_sampling import BINS, FLOOR, TimeSampler

CENTRES = (torch.arange(BINS) + 0.5) / BINS


def taught(curve):
    """A sampler that has seen the losses ``curve(t)`` often in every bin."""
    sampler = TimeSampler(True, 0.0005)
    for _ in range(60):
        sampler.update(CENTRES.double(), curve(CENTRES))
    return sampler


def test_uniform_times_are_spread_evenly_and_shuffled():
    torch.manual_seed(0)
    t = TimeSampler(False, 0.001).draw(1000)
    assert t.dtype == torch.float64
    assert t.min() >= 0.001
    assert t.max() <= 1
    assert torch.histc(t, 10, 0.001, 1).tolist() == pytest.approx([100] * 10, abs=1)  # stratified
    assert not torch.equal(t, t.sort().values)


def test_nothing_is_assumed_before_every_bin_was_seen():
    sampler = TimeSampler(True, 0.0005)
    sampler.update(torch.full((100,), 0.9).double(), torch.full((100,), 5.0))
    torch.testing.assert_close(sampler.density(), torch.full((BINS,), 1 / BINS))


def test_times_gather_where_the_loss_rises():
    sampler = taught(lambda t: 3 * ((t - 0.5) * 20).sigmoid())
    density = sampler.density()
    assert density.sum() == pytest.approx(1, abs=1e-5)
    assert density.argmax() in (24, 25)
    assert density.min() >= FLOOR / BINS * (1 - 1e-5)
    torch.manual_seed(0)
    share = float(((sampler.draw(2000) - 0.5).abs() < 0.1).float().mean())
    assert share == pytest.approx(float(density[20:30].sum()), abs=0.01)
    assert share > 0.5


def test_a_flat_loss_teaches_nothing():
    torch.testing.assert_close(taught(torch.ones_like).density(), torch.full((BINS,), 1 / BINS))


def test_the_memory_follows_a_loss_that_changes():
    sampler = taught(torch.ones_like)
    for _ in range(200):
        sampler.update(CENTRES.double(), torch.full((BINS,), 0.25))
    torch.testing.assert_close(sampler.loss, torch.full((BINS,), 0.25), atol=0.01, rtol=0)


def test_a_saved_sampler_goes_on_alike():
    sampler, again = taught(lambda t: t), TimeSampler(True, 0.0005)
    again.load_state_dict(sampler.state_dict())
    draws = []
    for one in (sampler, again):
        torch.manual_seed(3)
        draws.append(one.draw(64))
    assert torch.equal(*draws)
