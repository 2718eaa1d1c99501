"""The layout of a text: the number of its positions, and where its special tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from dlmctl.diffusion.noise import LAYOUT, Draw
from dlmctl.errors import UnsatisfiableError

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.text.tokenizer import Tokenizer

# START and END.
SPECIAL = 2
# The number of positions is a multiple of this, as in training, so that texts of similar length share a batch.
MULTIPLE = 8


class Sizes(Protocol):
    """The part of a model's configuration that limits lengths: most positions, training sentences by word count."""

    @property
    def length(self) -> int: ...

    @property
    def sentence_lengths(self) -> Sequence[int]: ...


class Layout(NamedTuple):
    """The layout of a text.

    Attributes:
        positions: its number of positions.
        words: its number of words; None if the model chooses it.
        sizes_open: whether the model chooses what a control draws by itself, the number of words in each blank of a
            template or the places of an edit, because no words fitted what was drawn.
    """

    positions: int
    words: int | None
    sizes_open: bool = False

    @property
    def open(self) -> int:
        """The number of positions available to words."""
        return self.positions - 1 if self.words is None else self.words


def positions_for(words: int, length: int) -> int:
    """The number of positions, at most ``length``, for a text of ``words`` words."""
    return min(-(-(words + SPECIAL) // MULTIPLE) * MULTIPLE, length)


def lay_out(
    config: Sizes, wanted: tuple[int, int] | None, draw: Draw, lengths: Sequence[float] | None = None
) -> Layout:
    """Lay out one text, with its length drawn from the distribution of the training sentences.

    If a control wants a number of words, or a range, the number is settled before the first step: the samples have
    exactly that many words, and all parts of a composition agree on it.

    Args:
        wanted: fewest and most words that the controls allow; None for any number.
        lengths: weights of the word counts from 0, if known for this text; else those of the training sentences.

    Raises:
        UnsatisfiableError: the controls require more words than the model can hold, or contradict each other.
    """
    low, high = wanted or (0, config.length)
    most = config.length - SPECIAL
    if low > high:
        raise UnsatisfiableError(
            f"the controls contradict each other: one needs at least {low} words, another at most {high}.",
            where=f"sample {draw.sample}",
        )
    if low > most:
        raise UnsatisfiableError(
            f"the target has {low} words, but the model holds at most {most}.",
            where=f"sample {draw.sample}",
            remedy="Shorten the target or choose a model with a greater length.",
        )
    high = min(high, most)
    weights = _weights(tuple(lengths or config.sentence_lengths), low, high) if low < high else None
    if weights is not None:
        words = int(torch.multinomial(weights, 1, generator=draw.generator(LAYOUT)))
    else:  # there is no choice, or no training sentence has a length in the range
        words = high if wanted is None or low == high else (low + high) // 2
    return Layout(positions_for(words, config.length), None if wanted is None else words)


@lru_cache(maxsize=64)
def _weights(lengths: Sequence[float], low: int, high: int) -> Tensor | None:
    """Weights of the word counts from 0 to ``high``, 0 below ``low``; None if all weights are 0."""
    weights = torch.tensor(lengths[: high + 1], dtype=torch.float64)
    weights[:low] = 0
    return weights if weights.sum() > 0 else None


@dataclass(frozen=True)
class Layouts:
    """The layouts of a batch: ``positions [B]``, and ``words [B]``, the word counts, -1 where the model decides."""

    positions: Tensor
    words: Tensor

    @cached_property
    def length(self) -> int:
        """The number of positions of the batch: that of its longest text."""
        return int(self.positions.max())

    @cached_property
    def mask(self) -> Tensor | None:
        """The attention mask ``[B, L]``, true on each row's own positions; None if all rows have full length."""
        place = torch.arange(self.length, device=self.positions.device)
        mask = place < self.positions[:, None]
        return None if mask.all() else mask


def batch_layouts(layouts: Sequence[Layout], device: torch.device) -> Layouts:
    """The layouts of a batch as tensors."""
    words = [-1 if layout.words is None else layout.words for layout in layouts]
    positions = [layout.positions for layout in layouts]
    return Layouts(torch.tensor(positions, device=device), torch.tensor(words, device=device))


def special_bans(layouts: Layouts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """The banned tokens ``[B, L, V]`` implied by the layout.

    At the positions of special tokens, all other tokens are banned: START is first, END follows the words and PAD
    follows END if the number of words is settled, and PAD fills positions beyond a row's own. At the positions of a
    settled number of words, the special tokens are banned.
    """
    special = _special(layouts, tokenizer)
    # Rows of the table: nothing banned; special tokens banned; all but START, END or PAD banned.
    table = torch.zeros(2 + len(special), vocabulary, dtype=torch.bool)
    table[1, [token_id for token_id, _ in special]] = True
    table[2:] = True
    row = (layouts.words[:, None] >= 0).long().expand(-1, layouts.length)
    for index, (token_id, is_there) in enumerate(special, start=2):
        table[index, token_id] = False
        row = torch.where(is_there, index, row)
    # A look-up in a table writes the result once; masks over [B, L, V] would pass over it once for each token.
    return table.to(row.device)[row]


def banned_tokens(layouts: Layouts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """``special_bans``, plus UNK everywhere: it stands for words outside the vocabulary and has no use in a text."""
    banned = special_bans(layouts, tokenizer, vocabulary)
    if tokenizer.unk_id < vocabulary:
        banned[..., tokenizer.unk_id] = True
    return banned


def uniform_logits(layouts: Layouts, tokenizer: Tokenizer, vocabulary: int) -> Tensor:
    """Uniform logits ``[B, L, V]``: 0 for every token, -inf for ``banned_tokens``."""
    banned = banned_tokens(layouts, tokenizer, vocabulary)
    return torch.zeros(banned.shape, device=banned.device).masked_fill(banned, -torch.inf)


def _special(layouts: Layouts, tokenizer: Tokenizer) -> list[tuple[int, Tensor]]:
    """The ids of START, END and PAD, each with the positions ``[B, L]`` where it must be."""
    positions, word_counts = layouts.positions, layouts.words
    place = torch.arange(layouts.length, device=word_counts.device)
    end, settled = word_counts[:, None] + 1, word_counts[:, None] >= 0
    return [
        (tokenizer.start_id, settled & (place == 0)),
        (tokenizer.end_id, settled & (place == end)),
        (tokenizer.pad_id, (settled & (place > end)) | (place >= positions[:, None])),
    ]
