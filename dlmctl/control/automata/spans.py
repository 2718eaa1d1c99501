"""Where the words of a batch are: the same at every step, so computed once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Spans(NamedTuple):
    """Which of N places are the words of each text: the first ones.

    Attributes:
        counts: ``[B, 1]``, the number of words.
        within, behind: ``[B, N]``, whether a place is a word, and whether it is not.
        at_end: ``[B, N]``, the place of the word that is at each place if every text is moved to end at the last one.
        moved: ``[B, N + 1]``, where each place is then, and the one after all.
    """

    counts: Tensor
    within: Tensor
    behind: Tensor
    at_end: Tensor
    moved: Tensor


def spans_of(words: Tensor, most: int | None = None) -> Spans:
    """The spans of texts of so many ``words [B]``, with ``most`` places.

    Args:
        most: the maximum of ``words``; computed if not given, which synchronises with a GPU.
    """
    most = int(words.max()) if most is None else most
    counts, places = words[:, None], torch.arange(most + 1, device=words.device)
    shift = most - counts
    within = places[:most] < counts
    at_end, moved = (places[:most] - shift).clamp(min=0), (places + shift).clamp(max=most)
    return Spans(counts, within, ~within, at_end, moved)
