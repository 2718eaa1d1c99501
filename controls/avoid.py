"""Words and phrases that a text must not have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from controls.phrases import ANY_NUMBER, by_length, occurrences, split_phrases, word_log_probs
from dlmctl.control.base import Check, Control, ControlParams
from dlmctl.control.state import ControlState, Setting
from dlmctl.errors import RecipeError


class AvoidParams(ControlParams):
    """What a recipe says of unwanted words."""

    words: list[str] = Field(
        min_length=1,
        description="words or phrases, none of which may occur; matched as whole words, upper and lower case as "
        "written, so list both where both are unwanted",
        examples=[["pub", "city centre"]],
    )

    @field_validator("words")
    @classmethod
    def _has_words(cls, words: list[str]) -> list[str]:
        split_phrases(words)
        return words


class Avoid(Control[AvoidParams]):
    """Takes words out of the word distribution at every step, and phrases where their other words stand; exact."""

    name = "avoid"
    ragged = True
    exact = True
    Params = AvoidParams

    def __init__(self, *phrases: str, **params: Any) -> None:
        super().__init__(**({"words": list(phrases)} if phrases else {}), **params)

    def word_count(self, sample: int) -> tuple[int, int]:
        """Any number, but a settled one: no START or PAD among the words, which would break a phrase up unseen."""
        return 1, ANY_NUMBER

    def prepare(self, setting: Setting) -> None:
        device, unknown = setting.model.embeddings.device, setting.tokenizer.unk_id
        phrases = [split_phrases(self.of(row).words) for row in range(setting.batch)]
        encoded = [[setting.tokenizer.encode(phrase)[1:-1] for phrase in row] for row in phrases]
        # A word outside the vocabulary cannot occur, nor can a phrase with one.
        self._ids = [[ids for ids in row if unknown not in ids] for row in encoded]
        self._phrases = by_length(self._ids, device)
        self._longer = [[ids for ids in row if len(ids) > 1] for row in self._ids]
        pairs = zip(itertools.chain(*encoded), itertools.chain(*phrases), strict=True)
        self._texts = {tuple(ids): " ".join(words) for ids, words in pairs}
        self._banned = torch.zeros(setting.batch, 1, setting.model.config.vocab_size, dtype=torch.bool, device=device)
        for row, ids in enumerate(self._ids):
            self._banned[row, 0, [phrase[0] for phrase in ids if len(phrase) == 1]] = True

    def energy(self, state: ControlState) -> Tensor:
        """-log p(no phrase at any place), the places taken as independent."""
        energy = torch.zeros(len(state.x), device=state.x.device)
        for phrases in self._phrases:
            p = word_log_probs(state.word_log_probs, phrases).sum(-1).exp()
            energy = energy.index_add(0, phrases.rows, -torch.log1p(-p.clamp(max=1 - 1e-6)).sum(-1))
        return energy

    def restrict(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(self._banned, -torch.inf)

    def condition(self, logits: Tensor, t: Tensor) -> Tensor:
        """No phrase among the likeliest words: where there is one, its word with the best alternative is taken out."""
        logits = logits.clone()
        best = logits.argmax(-1).tolist()
        for row, phrases in enumerate(self._longer):
            while found := next(((at, ids) for ids in phrases for at in occurrences(best[row], ids)), None):
                at, ids = found
                top = logits[row, at : at + len(ids)].topk(2).values
                weakest = int((top[:, 0] - top[:, 1]).argmin())
                if torch.isneginf(top[weakest, 1]):  # pinned by others; the check will say so
                    break
                logits[row, at + weakest, ids[weakest]] = -torch.inf
                best[row][at + weakest] = int(logits[row, at + weakest].argmax())
        return logits

    def verify(self, logits: Tensor) -> None:
        open_words = (~torch.isneginf(logits)).sum(-1)
        pinned = logits.argmax(-1).masked_fill(open_words > 1, -1).tolist()
        for row, phrases in enumerate(self._longer):
            for ids in phrases:
                if occurrences(pinned[row], ids):
                    raise RecipeError(f"another control wants the words {self._texts[tuple(ids)]!r}.", where=self.name)

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """Passed if none of the phrases occurs; the score is the share of those that do not."""
        checks = []
        for sample, text in enumerate(words):
            phrases = self.of(sample).words
            found = [p for p, split in zip(phrases, split_phrases(phrases), strict=True) if occurrences(text, split)]
            why = f"with {', '.join(map(repr, found))}" if found else "none there"
            checks.append(Check(1 - len(found) / len(phrases), not found, why))
        return checks

    @classmethod
    def from_target(cls, record: Any) -> AvoidParams:
        """The parameters that a line of a file of targets holds."""
        return AvoidParams.model_validate(record)
