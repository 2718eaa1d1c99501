"""Counter-based random numbers: any number of a stream can be generated directly, and is the same on every device.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 and table 2): ten rounds
of two 32-bit multiplications turn a counter of four 32-bit words, under a key of two, into four random words. It uses
64-bit integers, which torch has on every device; their products wrap like unsigned ones.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from dlmctl.models.numerics import in_float64

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
# Added to the key after each round.
WEYL = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF


def round_keys(key: Tensor) -> Tensor:
    """The keys ``[10, 2, *shape]`` of the rounds of ``philox``, from a key ``[2, *shape]``, int64 in [0, 2^32)."""
    step = torch.tensor(WEYL, device=key.device).reshape(2, *[1] * (key.dim() - 1))
    keys = torch.stack([key + number * step for number in range(ROUNDS)])
    # In the order in which ``philox`` has the words that they are combined with.
    keys[::2] = keys[::2].flip(1)
    return keys


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], keys: Tensor) -> Tensor:
    """Four random words for each counter: ``[4, *shape]``, int64 in [0, 2^32).

    Args:
        counter: four words, int64 in [0, 2^32), that broadcast together with ``shape``.
        keys: ``[10, 2, *shape]``, the ``round_keys`` of a key.
    """
    first, second, third, fourth, _ = torch.broadcast_tensors(*counter, keys[0, 0])
    multipliers = _multipliers(keys.device, first.dim())
    # Words one and three are multiplied; words four and two are combined with the upper halves of the products. The
    # upper half of word one's product goes into word three and vice versa, so each round swaps the two.
    factors, others = torch.stack([first, third]), (fourth, second)
    # All rounds reuse the same memory: on a CPU, allocating new pages costs more than the arithmetic.
    products = torch.empty_like(factors), torch.empty_like(factors)
    for number, key in enumerate(keys.unbind(0)):
        product = torch.mul(factors, multipliers[number % 2], out=products[number % 2])
        torch.bitwise_right_shift(product, 32, out=factors)
        factors[0].bitwise_xor_(others[0])
        factors[1].bitwise_xor_(others[1])
        # Only the lower halves of the other words count, here and in the result.
        factors.bitwise_xor_(key).bitwise_and_(WORD)
        others = product[1], product[0]
    return torch.stack([factors[0], others[1], factors[1], others[0]]).bitwise_and_(WORD)


@lru_cache(maxsize=8)
def _multipliers(device: torch.device, dims: int) -> Tensor:
    """The multipliers of words one and three, in this order and in the other: ``[2, 2, *dims]``."""
    return torch.tensor([MULTIPLIERS, MULTIPLIERS[::-1]], device=device).reshape(2, 2, *[1] * dims)


def uniform(words: Tensor) -> Tensor:
    """Numbers in [0, 1), float32, from the upper 24 bits of random words of any shape."""
    return (words >> 8).float().mul_(2.0**-24)


def normal(words: Tensor) -> Tensor:
    """Standard normal numbers ``[n, ...]``, float32, from random words ``[n, ...]``, n even (Box and Muller 1958)."""
    first, second = words.chunk(2)
    # The 0.5 avoids log(0); the smallest word gives a radius of 6.7.
    radius = first.float().add_(0.5).mul_(2.0**-32).clamp_(max=1.0).log_().mul_(-2.0).sqrt_()
    angle = second.float().mul_(2.0 * math.pi * 2.0**-32)
    numbers = torch.empty(words.shape, device=words.device, dtype=torch.float32)
    half = len(first)
    torch.mul(angle.cos(), radius, out=numbers[:half])
    torch.mul(angle.sin_(), radius, out=numbers[half:])
    return numbers


def cut_normal(words: Tensor, most: float) -> Tensor:
    """As ``normal``, truncated to absolute values of at most ``most``, by the inverse of the distribution function."""
    mass = math.erf(most / math.sqrt(2.0))
    quantile = in_float64(2 * words + 1).mul_(2.0**-32).sub_(1.0)
    return quantile.mul_(mass).erfinv_().mul_(math.sqrt(2.0)).clamp_(-most, most).float().to(words.device)
