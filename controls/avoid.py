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
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext, ControlState
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


class PreparedAvoid(Prepared):
    """The words and phrases as ids, for each row."""

    exact = True

    def __init__(self, batch: BatchContext[AvoidParams]) -> None:
        vocabulary, device = batch.vocabulary, batch.device
        phrases = [split_phrases(params.words) for params in batch.params]
        encoded = [[vocabulary.encode(phrase)[1:-1] for phrase in row] for row in phrases]
        # A word outside the vocabulary cannot occur, nor can a phrase with one.
        ids = [[phrase for phrase in row if vocabulary.unk_id not in phrase] for row in encoded]
        self.phrases = by_length(ids, device)
        self.longer = [[phrase for phrase in row if len(phrase) > 1] for row in ids]
        pairs = zip(itertools.chain(*encoded), itertools.chain(*phrases), strict=True)
        self.texts = {tuple(phrase): " ".join(words) for phrase, words in pairs}
        self.banned = torch.zeros(len(batch), 1, len(vocabulary), dtype=torch.bool, device=device)
        for row, found in enumerate(ids):
            self.banned[row, 0, [phrase[0] for phrase in found if len(phrase) == 1]] = True

    def energy(self, state: ControlState) -> Tensor:
        """-log p(no phrase at any place), the places taken as independent."""
        energy = torch.zeros(len(state.x), device=state.x.device)
        for phrases in self.phrases:
            p = word_log_probs(state.word_log_probs, phrases).sum(-1).exp()
            energy = energy.index_add(0, phrases.rows, -torch.log1p(-p.clamp(max=1 - 1e-6)).sum(-1))
        return energy

    def restrict(self, logits: Tensor) -> Tensor:
        return logits.masked_fill(self.banned, -torch.inf)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        """No phrase among the likeliest words: where there is one, its word with the best alternative is taken out."""
        logits = logits.clone()
        best = logits.argmax(-1).tolist()
        for row, phrases in enumerate(self.longer):
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
        for row, phrases in enumerate(self.longer):
            for ids in phrases:
                if occurrences(pinned[row], ids):
                    raise RecipeError(f"another control wants the words {self.texts[tuple(ids)]!r}.", where="avoid")


class Avoid(Control[AvoidParams]):
    """Takes words out of the word distribution at every step, and phrases where their other words stand; exact."""

    name = "avoid"
    Params = AvoidParams

    def __init__(self, *phrases: str, **params: Any) -> None:
        super().__init__(**({"words": list(phrases)} if phrases else {}), **params)

    def word_range(self, params: AvoidParams) -> tuple[int, int]:
        """Any number, but a settled one: no START or PAD among the words, which would break a phrase up unseen."""
        return 1, ANY_NUMBER

    def prepare(self, batch: BatchContext[AvoidParams]) -> Prepared:
        return PreparedAvoid(batch)

    def check(self, params: AvoidParams, words: Sequence[str]) -> Check:
        """Passed if none of the phrases occurs; the score is the share of those that do not."""
        split = split_phrases(params.words)
        places = [occurrences(words, phrase) for phrase in split]
        found = [text for text, at in zip(params.words, places, strict=True) if at]
        spans = [(start, len(phrase)) for at, phrase in zip(places, split, strict=True) for start in at]
        where = {place for start, size in spans for place in range(start, start + size)}
        why = f"with {', '.join(map(repr, found))}" if found else "none there"
        return Check(1 - len(found) / len(params.words), not found, why, tuple(sorted(where)))

    @classmethod
    def from_target(cls, record: Any) -> AvoidParams:
        """The parameters that a line of a file of targets holds."""
        return AvoidParams.model_validate(record)
