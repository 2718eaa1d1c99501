"""How many words a text has: exactly, or within a tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dlmctl.control.base import Check, Control, ControlParams
from dlmctl.control.state import ControlState, Setting
from dlmctl.diffusion.layout import STRUCTURE

# Stands for log 0 where minus infinity would spoil a gradient.
IMPOSSIBLE = -1e4


class LengthParams(ControlParams):
    """What a recipe says of a text's length."""

    words: int = Field(
        ge=1,
        description="number of words; punctuation marks are words of their own, as the model's vocabulary has them",
        examples=[14],
    )
    tolerance: int = Field(0, ge=0, description="most words more or fewer that are as good")


class Length(Control[LengthParams]):
    """Settles the number of words before sampling; within a tolerance it is drawn as often as in the training text.

    That is the paper's way, END pinned to its place (Li et al. 2022, section 5), done exactly. The energy serves where
    a number cannot be settled: under ``any`` and ``not``.
    """

    name = "length"
    ragged = True
    exact = True
    Params = LengthParams

    def __init__(self, words: int, tolerance: int = 0) -> None:
        super().__init__(words=words, tolerance=tolerance)

    def word_count(self, sample: int) -> tuple[int, int]:
        params = self.of(sample)
        return max(1, params.words - params.tolerance), params.words + params.tolerance

    def prepare(self, setting: Setting) -> None:
        ranges = torch.tensor([self.word_count(row) for row in range(setting.batch)])
        canvases = torch.tensor([[layout.canvas] for layout in setting.layouts])
        counts = torch.arange(setting.length - 1)
        possible = counts <= canvases - STRUCTURE
        wanted = possible & (counts >= ranges[:, :1]) & (counts <= ranges[:, 1:])
        device = setting.model.embeddings.device
        self._possible, self._wanted = possible.to(device), wanted.to(device)

    def energy(self, state: ControlState) -> Tensor:
        """-log p(a number of words in the range), among the texts that have words, then END, then PAD only."""
        log_probs = state.word_log_probs
        end, pad = log_probs[..., state.tokenizer.end_id], log_probs[..., state.tokenizer.pad_id]
        word = torch.log1p(-(end.exp() + pad.exp()).clamp(max=1 - 1e-6))
        # Of n words: words at 1 to n, END at n + 1, PAD behind it. Sums without differences: those would leave rounding
        # errors in the gradient of places that do not count, where 1 / p makes them large.
        before = F.pad(word[:, 1:-1].cumsum(1), (1, 0))
        behind = F.pad(pad[:, 2:].flip(1).cumsum(1).flip(1), (0, 1))
        log_p = before + end[:, 1:] + behind
        total, met = (log_p.masked_fill(~some, IMPOSSIBLE).logsumexp(1) for some in (self._possible, self._wanted))
        return total - met

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """Counts the words. The score falls by the share of the target that a text is off, beyond the tolerance."""
        checks = []
        for sample, text in enumerate(words):
            params = self.of(sample)
            off = max(0, abs(len(text) - params.words) - params.tolerance)
            checks.append(Check(max(0.0, 1 - off / params.words), not off, f"{len(text)} words"))
        return checks

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[LengthParams]:
        """The exact length of each sentence."""
        return [LengthParams(words=max(1, len(words))) for words in sentences]
