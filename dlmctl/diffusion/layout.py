"""The layout of a text: on how many positions it is drawn, and where its structure tokens stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dlmctl.diffusion.noise import LAYOUT, Draw
from dlmctl.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.control.base import Control
    from dlmctl.diffusion.model import ModelConfig
    from dlmctl.text.tokenizer import Tokenizer

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


class Layouts(NamedTuple):
    """The layouts of a batch: ``canvases [B]``, and ``words [B]`` with -1 where the model decides."""

    canvases: Tensor
    words: Tensor

    @property
    def length(self) -> int:
        """Positions of the batch: its longest canvas."""
        return int(self.canvases.max())

    @property
    def inside(self) -> Tensor | None:
        """``[B, L]``, true on each row's canvas; None where all rows fill the batch."""
        place = torch.arange(self.length, device=self.canvases.device)
        inside = place < self.canvases[:, None]
        return None if inside.all() else inside


def stacked(layouts: Sequence[Layout], device: torch.device) -> Layouts:
    """The layouts of a batch as tensors."""
    words = [-1 if layout.words is None else layout.words for layout in layouts]
    canvases = [layout.canvas for layout in layouts]
    return Layouts(torch.tensor(canvases, device=device), torch.tensor(words, device=device))


def pin_structure(x0: Tensor, layouts: Layouts, tokenizer: Tokenizer, embeddings: Tensor) -> Tensor:
    """``x0 [B, L, D]`` with START first, END after the words and PAD behind it where their number is settled, and PAD
    off each row's canvas."""
    for token, where in _structure(layouts, tokenizer):
        x0 = torch.where(where[..., None], embeddings[token].to(x0), x0)
    return x0


def structure_bans(layouts: Layouts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """``pin_structure`` as words ``[B, L, V]`` that cannot stand where they are: all but the token that is settled for
    a place, and, among a settled number of words, the structure tokens."""
    places = _structure(layouts, tokenizer)
    inside = (layouts.words[:, None] >= 0) & ~(places[0][1] | places[1][1] | places[2][1])
    token = torch.arange(vocabulary, device=inside.device)
    banned = inside[..., None] & torch.isin(token, torch.tensor([number for number, _ in places], device=token.device))
    for number, where in places:
        banned |= where[..., None] & (token != number)
    return banned


def _structure(layouts: Layouts, tokenizer: Tokenizer) -> list[tuple[int, Tensor]]:
    """START, END and PAD, each with the places ``[B, L]`` it is settled for."""
    canvases, words = layouts
    place = torch.arange(layouts.length, device=words.device)
    end, settled = words[:, None] + 1, words[:, None] >= 0
    return [
        (tokenizer.start_id, settled & (place == 0)),
        (tokenizer.end_id, settled & (place == end)),
        (tokenizer.pad_id, (settled & (place > end)) | (place >= canvases[:, None])),
    ]
