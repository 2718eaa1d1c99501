"""Log-probabilities of classes of words: the sum over their words, or the likeliest of them, at each position."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmctl.control.automata.sums import scatter_log_sum, scatter_top

# Scores that are summed at a time on a CPU: as many as fit its cache. None for all at once, as on a GPU.
PIECE_CPU: int | None = 1 << 18
# Words that are looked at together to find out whether only one is possible.
BLOCK = 128


def class_scores(window: Tensor, classes: Tensor, width: int) -> Tensor:
    """Log-probabilities ``[B, N, C]`` of the classes, summed over the words of ``window [B, N, V]``; differentiable.

    Args:
        classes: ``[B, V]``, the class of each token.
        width: the number of classes C.
    """
    if PIECE_CPU is None or window.device.type != "cpu" or window.requires_grad:
        return scatter_log_sum(window, classes[:, None].expand_as(window), width)
    # Half of the words of a text are written already, on average: there is nothing to sum.
    is_only, token = _only_words(window)
    value = torch.where(is_only, window.gather(2, token[..., None])[..., 0], -torch.inf)
    scores = window.new_full((*window.shape[:2], width), -torch.inf)
    scores.scatter_(2, classes.gather(1, token)[..., None], value[..., None])
    size = max(1, PIECE_CPU // window.shape[2])
    for row, is_open in enumerate(~is_only):
        for at in is_open.nonzero()[:, 0].split(size):
            if len(at):
                piece = window[row].index_select(0, at)
                scores[row, at] = scatter_log_sum(piece, classes[row].expand_as(piece), width)
    return scores


def class_tops(window: Tensor, classes: Tensor, width: int) -> Tensor:
    """Log-probabilities ``[B, N, C]`` of the likeliest word of each class; arguments as for ``class_scores``."""
    return scatter_top(window, classes[:, None].expand_as(window), width)


def _only_words(window: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a position is known to have a single possible word ``[B, N]``, and which; any word if not."""
    whole = window.shape[2] // BLOCK * BLOCK
    if not whole:
        return torch.zeros_like(window[..., 0], dtype=torch.bool), torch.zeros_like(window[..., 0], dtype=torch.long)
    blocks = window[..., :whole].unflatten(2, (-1, BLOCK))
    tops = blocks.amax(3)
    number = tops.argmax(2, keepdim=True)
    block = blocks.gather(2, number[..., None].expand(-1, -1, 1, BLOCK))[:, :, 0]
    is_only = ((tops > -torch.inf).sum(2) == 1) & ((block > -torch.inf).sum(2) == 1)
    is_only &= (window[..., whole:] == -torch.inf).all(2)
    return is_only, number[..., 0] * BLOCK + block.argmax(2)
