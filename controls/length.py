"""How many words a text has: exactly, or within a tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field, StrictInt
from torch import Tensor

from dlmctl import BatchContext, Check, ControlParams, ControlState, Energy, Prepared
from dlmctl.control.automata import exact_control, required_length
from dlmctl.diffusion.layout import SPECIAL
from dlmctl.text.tokenizer import HuggingFaceTokenizer

from .phrases import WordControl

# Stands for log 0 where minus infinity would spoil a gradient.
IMPOSSIBLE = -1e4
# More than any model holds; what one does hold is asked of it.
MOST_WORDS = 100_000


class LengthParams(ControlParams):
    """What a recipe says of a text's length."""

    words: StrictInt = Field(
        ge=1,
        le=MOST_WORDS,
        description="number of words; punctuation marks are words of their own, as the model's vocabulary has them",
        examples=[14],
    )
    tolerance: StrictInt = Field(
        default=0, ge=0, le=MOST_WORDS, description="most words more or fewer that are as good"
    )


def log_p_of_counts(state: ControlState) -> Tensor:
    """Log-probability ``[B, L - 1]`` of 0 words and more, then END, then PAD only, the places taken as independent."""
    log_probs = state.word_log_probs
    end, pad = log_probs[..., state.vocabulary.end_id], log_probs[..., state.vocabulary.pad_id]
    word = torch.log1p(-(end.exp() + pad.exp()).clamp(max=1 - 1e-6))
    # Of n words: words at 1 to n, END at n + 1, PAD behind it. Sums without differences: those would leave rounding
    # errors in the gradient of places that do not count, where 1 / p makes them large.
    before = F.pad(word[:, 1:-1].cumsum(1), (1, 0))
    behind = F.pad(pad[:, 2:].flip(1).cumsum(1).flip(1), (0, 1))
    return before + end[:, 1:] + behind


class Length(WordControl[LengthParams]):
    """Settles the number of words before sampling; within a tolerance it is drawn as often as in the training text.

    That is the paper's way, END pinned to its place (Li et al. 2022, section 5), done exactly. Under ``not`` another
    number is settled. The energy serves where a model of whole words is left to choose.
    """

    name = "length"
    by_length = True
    Params = LengthParams

    def word_range(self, params: LengthParams) -> tuple[int, int]:
        return max(1, params.words - params.tolerance), params.words + params.tolerance

    def prepare(self, batch: BatchContext[LengthParams]) -> Prepared:
        if isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return exact_control(batch, [required_length(*self.word_range(params)) for params in batch.params])
        bounds = torch.tensor([self.word_range(params) for params in batch.params], device=batch.device)
        positions = torch.tensor([[layout.positions] for layout in batch.layouts], device=batch.device)
        counts = torch.arange(batch.length - 1, device=batch.device)
        possible = counts <= positions - SPECIAL
        wanted = possible & (counts >= bounds[:, :1]) & (counts <= bounds[:, 1:])

        def energy(state: ControlState) -> Tensor:
            """-log p(a number of words in the range, among those that there can be)."""
            log_p = log_p_of_counts(state)
            total, met = (log_p.masked_fill(~some, IMPOSSIBLE).logsumexp(1) for some in (possible, wanted))
            return total - met

        return Energy(energy, exact=True)

    def check(self, params: LengthParams, words: Sequence[str]) -> Check:
        """Counts the words. The score falls by the share of the target that a text is off, beyond the tolerance."""
        off = max(0, abs(len(words) - params.words) - params.tolerance)
        many = "1 word" if len(words) == 1 else f"{len(words)} words"
        return Check(max(0.0, 1 - off / params.words), not off, many)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[LengthParams]:
        """The exact length of each sentence."""
        return [LengthParams(words=max(1, len(words))) for words in sentences]
