"""Random numbers from counters: number i of a stream without those before it, the same on every device.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 and table 2): ten rounds
of two 32-bit multiplications turn a counter of four words, under a key of two, into four random words. Written in
64-bit integers, which every device of torch has; products wrap as unsigned ones do.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
# What is added to the key after each round.
WEYL = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: Tensor) -> Tensor:
    """Four random words for each counter: ``[4, *shape]``, int64 in [0, 2^32).

    Args:
        counter: its four words, int64 in [0, 2^32), that broadcast to a shape together with the key's.
        key: ``[2, *shape]``, int64 in [0, 2^32).
    """
    first, second, third, fourth, _ = torch.broadcast_tensors(*counter, key[0])
    multipliers, steps = _constants(key.device, first.dim())
    # Words one and three, of which the products are, and four and two, which meet the upper halves of these. The upper
    # half of one's product goes into three, and the other way round, so after each round the two have changed over.
    factors, others, keys = torch.stack([first, third]), (fourth, second), key.flip(0)
    # The same memory in all rounds: to take new pages each time costs a CPU more than the arithmetic.
    products = torch.empty_like(factors), torch.empty_like(factors)
    for number in range(ROUNDS):
        product = torch.mul(factors, multipliers, out=products[number % 2])
        torch.bitwise_right_shift(product, 32, out=factors)
        factors[0].bitwise_xor_(others[0])
        factors[1].bitwise_xor_(others[1])
        # Of the other words only the lower halves count, here and in the end.
        factors.bitwise_xor_(keys).bitwise_and_(WORD)
        others = product[1], product[0]
        multipliers, keys, steps = multipliers.flip(0), (keys + steps).flip(0), steps.flip(0)
    return torch.stack([factors[0], others[1], factors[1], others[0]]).bitwise_and_(WORD)


@lru_cache(maxsize=8)
def _constants(device: torch.device, dims: int) -> tuple[Tensor, Tensor]:
    """The multipliers of words one and three, and what the keys that meet their products grow by."""
    made = torch.tensor([MULTIPLIERS, WEYL[::-1]], device=device).reshape(2, 2, *[1] * dims)
    return made[0], made[1]


def uniform(words: Tensor) -> Tensor:
    """Numbers in [0, 1), float32, of the upper 24 bits of random words of any shape."""
    return (words >> 8).float().mul_(2.0**-24)


def normal(words: Tensor) -> Tensor:
    """Standard normal numbers ``[n, ...]``, float32, of random words ``[n, ...]``, n even (Box and Muller 1958)."""
    first, second = words.chunk(2)
    # Never 0, whose logarithm is infinite; the smallest gives 6.7.
    radius = first.float().add_(0.5).mul_(2.0**-32).clamp_(max=1.0).log_().mul_(-2.0).sqrt_()
    angle = second.float().mul_(2.0 * math.pi * 2.0**-32)
    made = torch.empty(words.shape, device=words.device, dtype=torch.float32)
    half = len(first)
    torch.mul(angle.cos(), radius, out=made[:half])
    torch.mul(angle.sin_(), radius, out=made[half:])
    return made


def cut_normal(words: Tensor, most: float) -> Tensor:
    """As ``normal``, of the distribution without what is further than ``most`` from 0: the inverse of its integral."""
    inside = math.erf(most / math.sqrt(2.0))
    share = (2 * words + 1).double().mul_(2.0**-32).sub_(1.0)
    return share.mul_(inside).erfinv_().mul_(math.sqrt(2.0)).clamp_(-most, most).float()
