"""The layout of a text: on how many positions it is drawn, and where its structure tokens stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dlmctl.errors import RecipeError
from dlmctl.noise import LAYOUT, Draw

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.control import Control
    from dlmctl.diffusion import ModelConfig
    from dlmctl.tokenizer import Tokenizer

# START and END.
STRUCTURE = 2
# Canvases come in classes of this many positions, as in training, so that texts of like length share a batch.
CLASS = 8


class Layout(NamedTuple):
    """Positions of a text, and how many words it has: None where that is the model's to choose."""

    canvas: int
    words: int | None


def canvas_of(words: int, length: int) -> int:
    """The smallest canvas, at most ``length``, that holds so many words."""
    return min(-(-(words + STRUCTURE) // CLASS) * CLASS, length)


def lay_out(
    config: ModelConfig, control: Control[Any] | None, draw: Draw, lengths: Sequence[float] | None = None
) -> Layout:
    """The layout of one text, its length drawn like those of the training sentences.

    ``lengths`` are the weights of each number of words from 0, where more is known of this text.

    A control that wants a number of words, or a range, settles the number before the first step: the samples keep to
    it exactly, and every part of a composition agrees on it.

    Raises:
        RecipeError: the controls ask for more words than the model can hold, or for no possible number.
    """
    wanted = control.word_count(draw.sample) if control is not None else None
    low, high = wanted or (0, config.length)
    most = config.length - STRUCTURE
    if low > high:
        raise RecipeError(
            f"the controls contradict each other: one needs at least {low} words, another at most {high}.",
            where=f"sample {draw.sample}",
        )
    if low > most:
        raise RecipeError(
            f"the target has {low} words, but the model holds at most {most}.",
            where=f"sample {draw.sample}",
            remedy="Shorten the target or choose a model with a greater length.",
        )
    high = min(high, most)
    weights = torch.tensor((lengths or config.sentence_lengths)[: high + 1], dtype=torch.float64)
    weights[:low] = 0
    if weights.sum() > 0:
        words = int(torch.multinomial(weights, 1, generator=draw.generator(LAYOUT)))
    else:  # no training sentence is so long or so short
        words = high if wanted is None or low == high else (low + high) // 2
    return Layout(canvas_of(words, config.length), None if wanted is None else words)


def pin_structure(x0: Tensor, counts: Tensor, tokenizer: Tokenizer, embeddings: Tensor) -> Tensor:
    """``x0 [B, L, D]`` with START first, END after ``counts [B]`` words, PAD behind it; rows below 0 stay free."""
    for token, where in _structure(counts, x0.shape[1], tokenizer):
        x0 = torch.where(where[..., None], embeddings[token].to(x0), x0)
    return x0


def restrict_structure(logits: Tensor, counts: Tensor, tokenizer: Tokenizer) -> Tensor:
    """``pin_structure`` for word logits ``[B, L, V]``: -inf for all else, and for structure tokens among the words."""
    places = _structure(counts, logits.shape[1], tokenizer)
    inside = (counts[:, None] >= 0) & ~(places[0][1] | places[1][1] | places[2][1])
    token = torch.arange(logits.shape[-1], device=logits.device)
    banned = inside[..., None] & torch.isin(token, torch.tensor([number for number, _ in places], device=token.device))
    for number, where in places:
        banned |= where[..., None] & (token != number)
    return logits.masked_fill(banned, -torch.inf)


def _structure(counts: Tensor, length: int, tokenizer: Tokenizer) -> list[tuple[int, Tensor]]:
    """START, END and PAD, each with the places ``[B, L]`` it stands at; none in rows whose number is not settled."""
    place = torch.arange(length, device=counts.device)
    end, settled = counts[:, None] + 1, counts[:, None] >= 0
    return [
        (tokenizer.start_id, settled & (place == 0)),
        (tokenizer.end_id, settled & (place == end)),
        (tokenizer.pad_id, settled & (place > end)),
    ]
