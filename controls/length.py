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

# In place of log 0, because minus infinity would give a NaN gradient.
IMPOSSIBLE = -1e4
# More than any model holds; the model's own limit is checked elsewhere.
MAX_WORDS = 100_000


class LengthParams(ControlParams):
    """The number of words of a text."""

    words: StrictInt = Field(
        ge=1,
        le=MAX_WORDS,
        description="number of words; punctuation marks are separate words, as in the model's vocabulary",
        examples=[14],
    )
    tolerance: StrictInt = Field(
        default=0, ge=0, le=MAX_WORDS, description="how many words more or fewer are accepted as well"
    )


def log_p_of_counts(state: ControlState) -> Tensor:
    """Log-probability ``[B, L - 1]`` of n words, then END, then only PAD, for n from 0, with the positions taken as
    independent."""
    log_probs = state.word_log_probs
    end, pad = log_probs[..., state.vocabulary.end_id], log_probs[..., state.vocabulary.pad_id]
    word = torch.log1p(-(end.exp() + pad.exp()).clamp(max=1 - 1e-6))
    # For n words: words at 1 to n, END at n + 1, PAD after it. Only sums, because differences would leave rounding
    # errors in the gradient of positions that do not count, where 1 / p makes them large.
    words_before = F.pad(word[:, 1:-1].cumsum(1), (1, 0))
    pads_after = F.pad(pad[:, 2:].flip(1).cumsum(1).flip(1), (0, 1))
    return words_before + end[:, 1:] + pads_after


class Length(WordControl[LengthParams]):
    """Fixes the number of words before sampling; within a tolerance it is drawn as often as in the training text.

    This is the method of the paper, with END pinned to its position (Li et al. 2022, section 5), done exactly. Under
    ``not`` another number is fixed. The energy is used only if a model of whole words chooses the length itself.
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
            """-log p(a number of words in the range, among the possible ones)."""
            log_p = log_p_of_counts(state)
            total, satisfied = (log_p.masked_fill(~mask, IMPOSSIBLE).logsumexp(1) for mask in (possible, wanted))
            return total - satisfied

        return Energy(energy, exact=True)

    def check(self, params: LengthParams, words: Sequence[str]) -> Check:
        """Counts the words. The score is 1 minus the deviation beyond the tolerance, as a share of the target."""
        deviation = max(0, abs(len(words) - params.words) - params.tolerance)
        why = "1 word" if len(words) == 1 else f"{len(words)} words"
        return Check(max(0.0, 1 - deviation / params.words), not deviation, why)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[LengthParams]:
        """The exact length of each sentence."""
        return [LengthParams(words=max(1, len(words))) for words in sentences]
