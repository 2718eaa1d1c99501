"""Philox against the known answers of its authors' library (Random123), and the distributions made from its words."""

import math

import pytest
import torch

from dlmctl.diffusion.philox import WORD, cut_normal, normal, philox, round_keys, uniform

# Counter, key, words: from the list of known answers that comes with Random123.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words):
    random_words = philox(tuple(torch.tensor([word]) for word in counter), round_keys(torch.tensor(key).reshape(2, 1)))
    assert tuple(random_words[:, 0].tolist()) == words


def test_counters_and_keys_broadcast():
    at, zero = torch.arange(5), torch.zeros((), dtype=torch.long)
    keys = torch.tensor([[1, 2, 3], [4, 5, 6]])[:, :, None]
    random_words = philox((at, zero, zero, zero), round_keys(keys))
    assert random_words.shape == (4, 3, 5)
    alone = philox((at[2:3], zero, zero, zero), round_keys(keys[:, 1:2]))
    assert torch.equal(random_words[:, 1:2, 2:3], alone)


def words_of(count):
    zero = torch.zeros((), dtype=torch.long)
    return philox((torch.arange(count), zero, zero, zero), round_keys(torch.tensor([[7], [0]])))


def test_uniform_numbers_are_spread_evenly_and_below_one():
    numbers = uniform(words_of(20_000))
    assert 0 <= numbers.min() < numbers.max() < 1
    shares = torch.histc(numbers, 10, 0, 1) / numbers.numel()
    assert bool(((shares - 0.1).abs() < 0.005).all())
    assert uniform(torch.tensor([WORD])) < 1


def test_normal_numbers_have_the_moments_of_their_distribution():
    numbers = normal(words_of(50_000)).double()
    moments = [float(numbers.pow(power).mean()) for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.06)
    # Each pair of words yields two numbers, which must be independent.
    assert abs(float((numbers[0] * numbers[2]).mean())) < 0.02
    assert abs(float((numbers[0].square() * numbers[2].square()).mean()) - 1) < 0.05
    assert bool(torch.isfinite(normal(torch.tensor([[0], [0]]))).all())


def test_the_truncated_normal_is_the_normal_distribution_within_its_bounds():
    numbers = cut_normal(words_of(20_000), 1.0)
    assert numbers.abs().max() <= 1
    mass = math.erf(math.sqrt(0.5))
    share = math.erf(0.5 * math.sqrt(0.5)) / mass
    assert float((numbers.abs() < 0.5).float().mean()) == pytest.approx(share, abs=0.01)
