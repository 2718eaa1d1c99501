"""The layout of a text: on how many positions it is drawn, and where its special tokens stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from dlmctl.diffusion.noise import LAYOUT, Draw
from dlmctl.errors import Unmet

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.text.tokenizer import Tokenizer

# START and END.
SPECIAL = 2
# Texts are laid out on multiples of so many positions, as in training, so that those of like length share a batch.
MULTIPLE = 8


class Sizes(Protocol):
    """What a model's configuration says of its texts: most positions, and training sentences by length in words."""

    @property
    def length(self) -> int: ...

    @property
    def sentence_lengths(self) -> Sequence[int]: ...


class Layout(NamedTuple):
    """How a text is laid out.

    Attributes:
        positions: on how many positions it is drawn.
        words: how many words it has; None where that is the model's to choose.
        sizes_open: whether the model chooses how many of the words each blank of a template gets, because none fit as
            they were drawn.
    """

    positions: int
    words: int | None
    sizes_open: bool = False

    @property
    def open(self) -> int:
        """The positions that words may take."""
        return self.positions - 1 if self.words is None else self.words


def positions_for(words: int, length: int) -> int:
    """The fewest positions, at most ``length``, that hold so many words."""
    return min(-(-(words + SPECIAL) // MULTIPLE) * MULTIPLE, length)


def lay_out(
    config: Sizes, wanted: tuple[int, int] | None, draw: Draw, lengths: Sequence[float] | None = None
) -> Layout:
    """The layout of one text, its length drawn like those of the training sentences.

    Args:
        wanted: fewest and most words that its controls allow; None for any number.
        lengths: the weights of each number of words from 0, where more is known of this text.

    A control that wants a number of words, or a range, settles the number before the first step: the samples keep to
    it exactly, and every part of a composition agrees on it.

    Raises:
        Unmet: the controls ask for more words than the model can hold, or for no possible number.
    """
    low, high = wanted or (0, config.length)
    most = config.length - SPECIAL
    if low > high:
        raise Unmet(
            f"the controls contradict each other: one needs at least {low} words, another at most {high}.",
            where=f"sample {draw.sample}",
        )
    if low > most:
        raise Unmet(
            f"the target has {low} words, but the model holds at most {most}.",
            where=f"sample {draw.sample}",
            remedy="Shorten the target or choose a model with a greater length.",
        )
    high = min(high, most)
    weights = _weights(tuple(lengths or config.sentence_lengths), low, high) if low < high else None
    if weights is not None:
        words = int(torch.multinomial(weights, 1, generator=draw.generator(LAYOUT)))
    else:  # there is no choice, or no training sentence is so long or so short
        words = high if wanted is None or low == high else (low + high) // 2
    return Layout(positions_for(words, config.length), None if wanted is None else words)


@lru_cache(maxsize=64)
def _weights(lengths: Sequence[float], low: int, high: int) -> Tensor | None:
    """The weights of each number of words from 0 to ``high``, those below ``low`` being 0; None where all are."""
    weights = torch.tensor(lengths[: high + 1], dtype=torch.float64)
    weights[:low] = 0
    return weights if weights.sum() > 0 else None


@dataclass(frozen=True)
class Layouts:
    """The layouts of a batch: ``positions [B]``, and ``words [B]`` with -1 where the model decides."""

    positions: Tensor
    words: Tensor

    @cached_property
    def length(self) -> int:
        """Positions of the batch: those of its longest text."""
        return int(self.positions.max())

    @cached_property
    def mask(self) -> Tensor | None:
        """The attention mask ``[B, L]``, true on each row's own positions; None where all rows fill the batch."""
        place = torch.arange(self.length, device=self.positions.device)
        mask = place < self.positions[:, None]
        return None if mask.all() else mask


def stacked(layouts: Sequence[Layout], device: torch.device) -> Layouts:
    """The layouts of a batch as tensors."""
    words = [-1 if layout.words is None else layout.words for layout in layouts]
    positions = [layout.positions for layout in layouts]
    return Layouts(torch.tensor(positions, device=device), torch.tensor(words, device=device))


def special_bans(layouts: Layouts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """The words ``[B, L, V]`` that cannot stand where they are: all but the token that is settled for a place, and,
    among a settled number of words, the special tokens.

    START stands first, END after the words and PAD behind it where their number is settled, and PAD off each row's own
    positions.
    """
    places = _special(layouts, tokenizer)
    # What cannot stand: nothing, among a settled number of words the special tokens, at their places all but they.
    kinds = torch.zeros(2 + len(places), vocabulary, dtype=torch.bool)
    kinds[1, [number for number, _ in places]] = True
    kinds[2:] = True
    kind = (layouts.words[:, None] >= 0).long().expand(-1, layouts.length)
    for at, (number, where) in enumerate(places, start=2):
        kinds[at, number] = False
        kind = torch.where(where, at, kind)
    # Taken from a table, row by row: masks of all words at all places would be gone through once for each token.
    return kinds.to(kind.device)[kind]


def banned_tokens(layouts: Layouts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """``special_bans``, and UNK everywhere: it stands for words the vocabulary lacks, and a text has no use for it."""
    banned = special_bans(layouts, tokenizer, vocabulary)
    if tokenizer.unk_id < vocabulary:
        banned[..., tokenizer.unk_id] = True
    return banned


def even_logits(layouts: Layouts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """Word logits ``[B, L, V]`` by which every token is as likely as any other, -inf for those of ``banned_tokens``."""
    banned = banned_tokens(layouts, tokenizer, vocabulary)
    return torch.zeros(banned.shape, device=banned.device).masked_fill(banned, -torch.inf)


def _special(layouts: Layouts, tokenizer: Tokenizer) -> list[tuple[int, Tensor]]:
    """START, END and PAD, each with the places ``[B, L]`` it is settled for."""
    positions, words = layouts.positions, layouts.words
    place = torch.arange(layouts.length, device=words.device)
    end, settled = words[:, None] + 1, words[:, None] >= 0
    return [
        (tokenizer.start_id, settled & (place == 0)),
        (tokenizer.end_id, settled & (place == end)),
        (tokenizer.pad_id, (settled & (place > end)) | (place >= positions[:, None])),
    ]
