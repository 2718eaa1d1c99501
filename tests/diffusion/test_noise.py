import pytest
import torch

from dlmctl.diffusion import noise
from dlmctl.diffusion.noise import CONTROL, LAYOUT, NOISE, Draw, SampleNoise

LIKE = torch.empty(3, 50, 40)


def test_the_noise_of_a_row_depends_only_on_its_draw():
    draws = [Draw(7, sample) for sample in (0, 1, 2)]
    together = SampleNoise(draws)
    first, second = together(LIKE), together(LIKE)
    alone = SampleNoise([draws[2]])
    assert torch.equal(alone(LIKE[:1])[0], first[2])
    assert torch.equal(alone(LIKE[:1])[0], second[2])
    assert not torch.equal(first, second)


def test_every_number_of_a_draw_changes_the_stream():
    draws = [Draw(0, 0), Draw(1, 0), Draw(0, 1), Draw(0, 0, 1)]
    starts = {
        float(torch.randn((), generator=draw.generator(use))) for draw in draws for use in (NOISE, LAYOUT, CONTROL)
    }
    assert len(starts) == 12


def test_noise_is_the_same_for_many_calls_at_once_or_for_each(monkeypatch):
    draws, like = [Draw(0, sample) for sample in range(2)], torch.empty(2, 5, 3)
    several, each = SampleNoise(draws, positions=[5, 4]), SampleNoise(draws, positions=[5, 4])
    calls = range(noise.CALLS_AHEAD + 3)
    together = [several(like) for _ in calls]
    monkeypatch.setattr(noise, "CALLS_AHEAD", 1)
    assert torch.equal(torch.stack(together), torch.stack([each(like) for _ in calls]))


def test_noise_is_standard_normal_of_the_requested_type():
    numbers = SampleNoise([Draw(0, sample) for sample in range(3)])(LIKE.double())
    assert numbers.dtype == torch.float64
    assert numbers.mean().item() == pytest.approx(0, abs=0.05)
    assert numbers.std().item() == pytest.approx(1, abs=0.05)
    correlation = torch.corrcoef(numbers.reshape(3, -1)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.08


def test_top_p_truncates_the_distribution():
    truncated = SampleNoise([Draw(0, sample) for sample in range(3)], top_p=1.0)(LIKE)
    assert truncated.abs().max() <= 1
    # The standard deviation of a normal distribution truncated at one standard deviation.
    assert truncated.std().item() == pytest.approx(0.5396, abs=0.02)


@pytest.mark.parametrize("top_p", [0.0, -1.0])
def test_a_top_p_that_is_not_positive_is_refused(top_p):
    with pytest.raises(ValueError, match="must be positive"):
        SampleNoise([Draw(0, 0)], top_p)
