"""Words and phrases that a text must have, anywhere in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from controls.phrases import ANY_NUMBER, Phrases, by_length, occurrences, split_phrases, word_log_probs
from dlmctl.control.base import Check, Control, ControlParams
from dlmctl.control.prepared import Prepared
from dlmctl.control.state import BatchContext, ControlState
from dlmctl.errors import RecipeError
from dlmctl.text.vocabulary import known_ids

# Below this time a phrase is held to the place where it is likeliest; above, it is spread over the likely ones.
SETTLED = 0.7
# Power of a place's probability when a phrase is spread: 1 is Bayes' rule for independent words, but words are not
# independent, and texts were more fluent with 2 (by 0.1 nats a token; 4 was no better).
SHARPNESS = 2.0


class ContainsParams(ControlParams):
    """What a recipe says of required words."""

    words: list[str] = Field(
        min_length=1,
        description="words or phrases, each at least once, in any order; matched as whole words, upper and lower case "
        "as written",
        examples=[["riverside", "cheap"]],
    )

    @field_validator("words")
    @classmethod
    def _has_words(cls, words: list[str]) -> list[str]:
        split_phrases(words)
        return words

    def phrases(self) -> list[list[str]]:
        """Words of each phrase, longest first; a phrase that another one holds is met by that one."""
        phrases = sorted(split_phrases(list(dict.fromkeys(self.words))), key=len, reverse=True)
        return [p for at, p in enumerate(phrases) if not any(occurrences(other, p) for other in phrases[:at])]


class PreparedContains(Prepared):
    """The phrases as ids, for each row."""

    exact = True

    def __init__(self, batch: BatchContext[ContainsParams]) -> None:
        phrases = [params.phrases() for params in batch.params]
        self.texts = [[" ".join(phrase) for phrase in row] for row in phrases]
        self.ids = [[known_ids(phrase, batch.vocabulary, "contains") for phrase in row] for row in phrases]
        self.phrases = by_length(self.ids, batch.device)
        # The first phrase of every row, then the second, ...: those of one row see each other's places.
        most = max(map(len, self.ids))
        self.turns = [by_length([row[turn : turn + 1] for row in self.ids], batch.device) for turn in range(most)]

    def energy(self, state: ControlState) -> Tensor:
        """-log p(each phrase at one place at least), the words taken as independent, summed over the phrases."""
        energy = torch.zeros(len(state.x), device=state.x.device)
        for phrases in self.phrases:
            log_p = word_log_probs(state.word_log_probs, phrases).sum(-1)
            energy = energy.index_add(0, phrases.rows, -_log_any(log_p))
        return energy

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits given that the phrases occur: at likely places first, at the best places in the end.

        Early on a phrase stands at each place with a probability that grows with its likelihood there, so the model can
        still move it; later it is pinned.
        """
        if float(t[0]) < SETTLED:
            return self._pin(logits)
        for turn in self.turns:
            for phrases in turn:
                logits = _spread(logits, phrases)
        return logits

    def _pin(self, logits: Tensor) -> Tensor:
        logits = logits.clone()
        for row, places in enumerate(self._places(logits)):
            # Without places, which several controls in a short text may come to, the check will say what is missing.
            for ids, place in zip(self.ids[row], places or [], strict=False):
                for at, index in enumerate(ids, start=place):
                    kept = logits[row, at, index].clone()
                    logits[row, at] = -torch.inf
                    logits[row, at, index] = kept
        return logits

    def _places(self, logits: Tensor) -> list[list[int] | None]:
        """The best start of each phrase of each row, None for a row in which they do not fit."""
        log_probs = logits.log_softmax(-1).cpu()
        found: list[list[list[float]]] = [[] for _ in self.ids]
        for turn in self.turns:
            for phrases in turn:
                starts = word_log_probs(log_probs, Phrases(phrases.rows.cpu(), phrases.ids.cpu())).sum(-1)
                for row, log_p in zip(phrases.rows.tolist(), starts.tolist(), strict=True):
                    found[row].append(log_p)
        return [best_places(log_p, list(map(len, ids))) for log_p, ids in zip(found, self.ids, strict=True)]

    def verify(self, logits: Tensor) -> None:
        for row, places in enumerate(self._places(logits)):
            if places is None:
                raise RecipeError(
                    f"no place is left for {' and '.join(map(repr, self.texts[row]))}.",
                    where="contains",
                    remedy="Another control forbids these words or wants others, or the text is too short.",
                )


class Contains(Control[ContainsParams]):
    """Conditions the word distribution of every step on the phrases; exact, whatever else is asked for."""

    name = "contains"
    Params = ContainsParams

    def __init__(self, *phrases: str, **params: Any) -> None:
        super().__init__(**({"words": list(phrases)} if phrases else {}), **params)

    def word_range(self, params: ContainsParams) -> tuple[int, int]:
        return sum(map(len, params.phrases())), ANY_NUMBER

    def prepare(self, batch: BatchContext[ContainsParams]) -> Prepared:
        return PreparedContains(batch)

    def check(self, params: ContainsParams, words: Sequence[str]) -> Check:
        """The share of the phrases that occur."""
        phrases = params.phrases()
        missing = [" ".join(phrase) for phrase in phrases if not occurrences(words, phrase)]
        why = f"without {', '.join(map(repr, missing))}" if missing else "all there"
        return Check(1 - len(missing) / len(phrases), not missing, why)

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[ContainsParams]:
        """The two longest words of each sentence."""
        return [ContainsParams(words=sorted(dict.fromkeys(words), key=len, reverse=True)[:2]) for words in sentences]


def _log_any(log_p: Tensor) -> Tensor:
    """log(1 - prod(1 - p)) over the last dimension, of ``log_p [..., S]``; finite gradients for p from 0 to 1."""
    none = torch.log1p(-log_p.exp().clamp(max=1 - 1e-6)).sum(-1)
    rare = none > -1e-4  # 1 - prod(1 - p) is sum(p), which does not underflow as a sum of logarithms
    return torch.where(rare, log_p.logsumexp(-1), torch.log(-torch.expm1(none.masked_fill(rare, -1.0))))


def _spread(logits: Tensor, phrases: Phrases) -> Tensor:
    """Logits of a text that has the phrase at one start, drawn by its probability there to the power SHARPNESS."""
    probs = logits[phrases.rows].softmax(-1)
    starts = word_log_probs(probs.log(), phrases._replace(rows=torch.arange(len(probs), device=probs.device))).sum(-1)
    share = (SHARPNESS * starts).softmax(-1).nan_to_num(0.0)
    for word in range(phrases.ids.shape[1]):
        # Given each start, one position holds this word.
        there = torch.zeros_like(probs[..., 0])
        there[:, word : word + share.shape[1]] = share
        holds = torch.nn.functional.one_hot(phrases.ids[:, word], probs.shape[-1])[:, None]
        probs = (1 - there)[..., None] * probs + there[..., None] * holds
    return logits.index_copy(0, phrases.rows, probs.log())


def best_places(log_p: list[list[float]], sizes: list[int]) -> list[int] | None:
    """Starts of phrases such that none overlap and the sum of ``log_p[phrase][start]`` is greatest; None if none fit.

    Dynamic programming over (position, phrases placed so far), where the best place of each is not enough.
    """
    if not all(row and max(row) > float("-inf") for row in log_p):
        return None
    each = [row.index(max(row)) for row in log_p]
    taken = [at for place, size in zip(each, sizes, strict=True) for at in range(place, place + size)]
    if len(set(taken)) == len(taken):
        return each
    length = max(len(row) + size - 1 for row, size in zip(log_p, sizes, strict=True))

    @cache
    def best(position: int, placed: int) -> tuple[float, tuple[int, ...]]:
        if placed == (1 << len(sizes)) - 1:
            return 0.0, ()
        if position >= length:
            return float("-inf"), ()
        found = best(position + 1, placed)
        for phrase, size in enumerate(sizes):
            if not placed >> phrase & 1 and position < len(log_p[phrase]):
                rest, order = best(position + size, placed | 1 << phrase)
                total = log_p[phrase][position] + rest
                if total > found[0]:
                    found = total, (phrase, position, *order)
        return found

    total, order = best(0, 0)
    if total == float("-inf"):
        return None
    places = dict(zip(order[::2], order[1::2], strict=True))
    return [places[phrase] for phrase in range(len(sizes))]
