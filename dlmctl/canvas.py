"""The canvas: how many positions a text is laid out on, and where its structure tokens stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dlmctl.errors import RecipeError
from dlmctl.noise import generator

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.control import Control, ControlState
    from dlmctl.diffusion import ModelConfig

# START and END.
STRUCTURE = 2
# Canvases come in classes of this many positions, as in training, so that texts of like length share a batch.
CLASS = 8


def canvas_of(words: int, length: int) -> int:
    """The smallest canvas, at most ``length``, that holds so many words."""
    return min(-(-(words + STRUCTURE) // CLASS) * CLASS, length)


def choose_canvas(config: ModelConfig, control: Control | None, seed: int, sample: int) -> int:  # type: ignore[type-arg]
    """The canvas of one sample: fitted to what its control demands, else drawn like the training sentences.

    Raises:
        RecipeError: the control asks for more words than the model can hold, or for no possible number.
    """
    wanted = control.word_count(sample) if control is not None else None
    most = config.length - STRUCTURE
    if wanted is not None:
        low, high = wanted
        if low > high:
            raise RecipeError(
                f"the controls contradict each other: one needs at least {low} words, another at most {high}.",
                where=f"sample {sample}",
            )
        if low > most:
            raise RecipeError(
                f"the target has {low} words, but the model holds at most {most}.",
                where=f"sample {sample}",
                remedy="Shorten the target or choose a model with a greater length.",
            )
        if low == high:
            return canvas_of(low, config.length)
    histogram = torch.tensor(config.sentence_lengths, dtype=torch.float64)
    if wanted is not None and len(histogram):
        histogram[: wanted[0]] = 0
        histogram[wanted[1] + 1 :] = 0
    if not len(histogram) or not histogram.sum() > 0:
        return config.length if wanted is None else canvas_of(min(wanted[1], most), config.length)
    # A stream of its own, so that the canvas and the first noise are not correlated.
    drawn = int(torch.multinomial(histogram, 1, generator=generator(seed, sample, 1)))
    return canvas_of(drawn, config.length)


def pin_structure(x0: Tensor, counts: Tensor, state: ControlState) -> Tensor:
    """``x0 [B, L, D]`` with START first, END after ``counts [B]`` words, PAD behind it."""
    tokenizer, place = state.tokenizer, torch.arange(x0.shape[1], device=x0.device)
    end = counts[:, None] + 1
    for token, where in (
        (tokenizer.start_id, (place == 0).expand(len(x0), -1)),
        (tokenizer.end_id, place == end),
        (tokenizer.pad_id, place > end),
    ):
        x0 = torch.where(where[..., None], state.embeddings[token].to(x0), x0)
    return x0
