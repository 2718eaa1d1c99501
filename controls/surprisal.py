"""How expected a word is after the words before it: cloze sentences, and stimuli for experiments on prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from dlmctl import BatchContext, Check, Control, ControlParams, Mark, Prepared, Pretrained
from dlmctl.annotators.causal import CausalLM
from dlmctl.annotators.reader import Reader, load_word_reader, text_scorer
from dlmctl.annotators.surprisal import surprisals
from dlmctl.annotators.word_selection import Where, selected_places
from dlmctl.errors import RecipeError
from dlmctl.text.spelling import detokenize, plain
from dlmctl.text.tokenizer import HuggingFaceTokenizer, WordTokenizer
from dlmctl.text.vocabulary import known_ids

from .phrases import ANY_NUMBER
from .word_bounds import in_order

# Against a word, in nats for each nat by which it is beyond the bounds.
WEIGHT = 3.0
# Of smaller probabilities the logarithm is that of this one.
MIN_PROBABILITY = 1e-30
# The most words that a verdict names.
MAX_NAMED = 3


class SurprisalParams(ControlParams):
    """Which words, and the bounds of their surprisal."""

    word: str | None = Field(
        default=None, min_length=1, max_length=100, description="a word, wherever it occurs", examples=["umbrella"]
    )
    where: Where | None = Field(default=None, description="in its place: the words with these tags or at these places")
    nats: list[Annotated[float, Field(ge=0, allow_inf_nan=False)] | None] = Field(
        min_length=2,
        max_length=2,
        description="least and most surprisal, null for no bound: -log p(word | the words before it), in nats; "
        "0.7 nats are one bit",
        examples=[[None, 1.5]],
    )
    scorer: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="the language model that judges: a causal model of Hugging Face by folder or hub name, or the "
        "folder of a scorer or of a model that has one; if not given, the model's own scorer",
    )

    reads: ClassVar[Sequence[str]] = ("scorer",)
    models: ClassVar[Sequence[str]] = reads

    @field_validator("nats")
    @classmethod
    def _are_bounds(cls, nats: list[float | None]) -> list[float | None]:
        return list(in_order("nats", nats))

    @model_validator(mode="after")
    def _word_or_where(self) -> Self:
        if (self.word is None) == (self.where is None):
            raise ValueError("words are named by either `word` or `where`")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = self.nats
        return low or 0.0, float("inf") if high is None else high


class Surprisal(Control[SurprisalParams]):
    """Bounds the surprisal of words; texts that fail are drawn again, up to ``until.max_rounds`` rounds.

    Words at places are guided: there the model's own probability of a word, given all other words so far, stands for
    the judge's, who only reads what comes before. Elsewhere nothing guides, but drafts differ so much that some of a
    few ``candidates`` fit.
    """

    name = "surprisal"
    Params = SurprisalParams
    by_rejection = True
    measures = ("nats",)
    asks_scorer = True

    def __init__(self, *args: Any, **params: Any) -> None:
        super().__init__(*args, **params)
        self.own_scorer: Reader | None = None

    def attach(self, model: Pretrained) -> None:
        self.own_scorer = text_scorer(model)
        for params in self.sets:
            reader = self._reader(params.scorer)
            if params.word is None:
                continue
            if len(model.tokenizer.split(params.word)) != 1:
                raise RecipeError(f"{params.word!r} is not one word to the model.", where=self.name)
            for tokenizer in [model.tokenizer, *([] if isinstance(reader, CausalLM) else [reader[1]])]:
                if isinstance(tokenizer, WordTokenizer):
                    known_ids([params.word], tokenizer, self.name)

    def _reader(self, source: str | None) -> Reader:
        if source is not None:
            return load_word_reader(source)
        if self.own_scorer is None:
            what = "the model has no scorer, under which `surprisal` judges."
            raise RecipeError(what, where=self.name, remedy="Name one: `scorer: openai-community/gpt2`.")
        return self.own_scorer

    def word_range(self, params: SurprisalParams) -> tuple[int, int] | None:
        """Places need a fixed number of words, with room for them."""
        return (params.where.fewest, ANY_NUMBER) if params.where is not None and params.where.places else None

    def prepare(self, batch: BatchContext[SurprisalParams]) -> Prepared:
        selected = torch.zeros(len(batch), batch.length, dtype=torch.bool)
        for row, (params, layout) in enumerate(zip(batch.params, batch.layouts, strict=True)):
            if params.where is not None and layout.words is not None:
                selected[row, [place + 1 for place in params.where.at(layout.words)]] = True
        if not selected.any() or isinstance(batch.vocabulary, HuggingFaceTokenizer):
            return Prepared()
        bounds = torch.tensor([params.bounds for params in batch.params])
        return Expected(selected, bounds, batch.device)

    def check(self, params: SurprisalParams, words: Sequence[str]) -> Check:
        (check,) = self.check_written([params], [words], [detokenize(words)])
        return check

    def check_written(
        self, params: Sequence[SurprisalParams], texts: Sequence[Sequence[str]], written: Sequence[str]
    ) -> list[Check]:
        """Judges by a language model that takes no part in guidance. The score is 1 / (1 + d) for a word d nats beyond
        the bounds, the least of all words; 0 if there is none."""
        nats: dict[int, list[float | None]] = {}
        for source in dict.fromkeys(target.scorer for target in params):
            rows = [row for row, target in enumerate(params) if target.scorer == source]
            read = surprisals(self._reader(source), [texts[row] for row in rows], [written[row] for row in rows])
            nats.update(zip(rows, read, strict=True))
        selecting = [row for row, target in enumerate(params) if target.where is not None]
        wheres = [target.where for target in params if target.where is not None]
        selected = dict(zip(selecting, selected_places(wheres, [texts[row] for row in selecting]), strict=True))
        return [
            _verdict(target, words, nats[row], selected.get(row, _places_of(target.word, words)))
            for row, (target, words) in enumerate(zip(params, texts, strict=True))
        ]


class Expected(Prepared):
    """Guides words at places by the model's own probability of them.

    Args:
        selected: ``[B, L]``, the places.
        bounds: ``[B, 2]``, least and most nats.
    """

    weighs = True

    def __init__(self, selected: Tensor, bounds: Tensor, device: torch.device) -> None:
        self.selected, self.bounds = selected, bounds
        rows, places = selected.nonzero(as_tuple=True)
        self.rows, self.places = rows.to(device), places.to(device)
        self.least, self.most = bounds[rows].to(device)[:, :, None].unbind(1)

    def evidence_given(self, probabilities: Tensor) -> Tensor:
        nats = -probabilities[self.rows, self.places].clamp(min=MIN_PROBABILITY).log()
        beyond = (self.least - nats).clamp(min=0) + (nats - self.most).clamp(min=0)
        evidence = torch.zeros_like(probabilities)
        evidence[self.rows, self.places] = -WEIGHT * beyond.to(evidence)
        return evidence

    def of_rows(self, rows: Tensor, length: int) -> Prepared:
        kept = rows.cpu()
        return Expected(self.selected[kept, :length], self.bounds[kept], self.rows.device)


def _places_of(word: str | None, words: Sequence[str]) -> list[int]:
    return [at for at, other in enumerate(words) if word is not None and plain(other) == word]


def _verdict(
    params: SurprisalParams, words: Sequence[str], nats: Sequence[float | None], places: Sequence[int]
) -> Check:
    if not places:
        return Check(0.0, False, "no word to judge" if params.word is None else f"without {params.word!r}")
    low, high = params.bounds
    beyond = {at: math.inf if (value := nats[at]) is None else max(0.0, low - value, value - high) for at in places}
    marks = tuple(Mark(at, at, _shown(nats[at]), not beyond[at]) for at in places)
    faults = tuple(at for at in places if beyond[at])
    named = ", ".join(f"{words[at]} {_shown(nats[at])}" for at in places[:MAX_NAMED])
    # The fault of a given word lies in the words before it.
    where = faults if params.word is None else ()
    worst = nats[max(places, key=beyond.__getitem__)]
    values = {} if worst is None else {"nats": round(worst, 4)}
    return Check(1 / (1 + max(beyond.values())), not faults, f"{named} nats", where, marks, values)


def _shown(nats: float | None) -> str:
    return "?" if nats is None else f"{nats:.2f}"
