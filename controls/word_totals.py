"""Base of controls that count something in the words of a text, such as syllables: exactly, or within a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import ClassVar

import torch
from pydantic import Field, StrictInt

from dlmctl import BatchContext, Check, ControlParams, Mark, Prepared, Pretrained
from dlmctl.control.automata import (
    Alphabet,
    Automaton,
    Requirement,
    alphabet_of,
    exact_control,
    log_probability_by_length,
    stacked,
)
from dlmctl.control.automata.totals import Quantity, with_total
from dlmctl.control.prepared import MissingMember
from dlmctl.text.tokenizer import HuggingFaceTokenizer, Tokenizer
from dlmctl.text.word_counts import load_counts

from .phrases import ANY_NUMBER, WordControl

# More than any text of a model of whole words has.
MAX_NUMBER = 2000


class TotalParams(ControlParams):
    """How many of what is counted a text has."""

    number: StrictInt = Field(ge=1, le=MAX_NUMBER, description="how many there are", examples=[12])
    tolerance: StrictInt = Field(
        default=0, ge=0, le=MAX_NUMBER, description="how many more or fewer are accepted as well"
    )

    @property
    def bounds(self) -> tuple[int, int]:
        """The fewest and the most that are accepted."""
        return max(0, self.number - self.tolerance), self.number + self.tolerance


class TotalControl(WordControl[TotalParams]):
    """Holds what the words of a text add up to, exactly, also in combination with other controls.

    The number of words is drawn as often as in the training text, and as texts of so many words have the total, with
    their words drawn independently.
    """

    Params = TotalParams
    measures = ("number",)
    # What is counted, in the plural, for messages.
    unit: ClassVar[str]

    tokenizer: Tokenizer | None = None
    log_frequencies: torch.Tensor | None = None
    usual_lengths: Sequence[int] = ()
    most_words = ANY_NUMBER
    # The texts with the total that ``over_tokens`` leaves out, for messages.
    leaves_out: ClassVar[str] = ""
    # What ``lengths`` returned before: it is asked for every text.
    known_lengths: dict[tuple[tuple[int, int], int], list[float]]

    @staticmethod
    def quantity(alphabet: Alphabet) -> Quantity:
        """What each word of a vocabulary adds to the total."""
        raise MissingMember

    @staticmethod
    def over_tokens(tokenizer: HuggingFaceTokenizer, bounds: tuple[int, int]) -> Automaton:
        """The texts with a total within bounds, if tokens are parts of words."""
        raise MissingMember

    def attach(self, model: Pretrained) -> None:
        super().attach(model)
        self.tokenizer, self.usual_lengths = model.tokenizer, model.model.config.sentence_lengths
        self.known_lengths, self.log_frequencies = {}, None
        self.most_words = ANY_NUMBER
        if isinstance(model.tokenizer, HuggingFaceTokenizer):
            self.most_words = model.model.config.length - 1
        elif (counts := load_counts(model.folder)) is not None:
            words = alphabet_of(model.tokenizer).words
            counted = [0 if word is None else counts.counts.get(word, 0) for word in words]
            self.log_frequencies = torch.tensor(counted, dtype=torch.float64).log().log_softmax(0)

    def word_range(self, params: TotalParams) -> tuple[int, int]:
        """Any number of words, but a fixed one.

        Over tokens no more than the model has positions, so that the number of tokens is settled before they are drawn.
        """
        return 1, self.most_words

    def lengths(self, params: TotalParams, most: int) -> list[float]:
        if self.tokenizer is None or self.log_frequencies is None:
            return []
        if (key := (params.bounds, most)) not in self.known_lengths:
            automaton = stacked([_automaton(self.quantity, alphabet_of(self.tokenizer), params.bounds)])
            shares = log_probability_by_length(self.log_frequencies, automaton, most).exp().tolist()
            self.known_lengths[key] = [count * share for count, share in zip(self.usual_lengths, shares, strict=False)]
        return self.known_lengths[key]

    def prepare(self, batch: BatchContext[TotalParams]) -> Prepared:
        return exact_control(batch, [self.requirement(params) for params in batch.params])

    def requirement(self, params: TotalParams) -> Requirement:
        """What a text needs, over words or over tokens."""
        language = partial(_automaton, self.quantity, bounds=params.bounds)
        over_tokens = partial(self.over_tokens, bounds=params.bounds)
        return Requirement(
            self.name,
            params.bounds,
            language=language,
            over_tokens=over_tokens,
            has_complement=not self.leaves_out,
            leaves_out=self.leaves_out,
        )

    def verdict(self, params: TotalParams, total: int, marks: Sequence[Mark] = ()) -> Check:
        """The score is 1 minus the deviation beyond the tolerance, as a share of the target."""
        deviation = max(0, abs(total - params.number) - params.tolerance)
        unit = self.unit.removesuffix("s") if total == 1 else self.unit
        score = max(0.0, 1 - deviation / params.number)
        return Check(score, not deviation, f"{total} {unit}", (), tuple(marks), {"number": total})


@lru_cache(maxsize=64)
def _automaton(quantity: Callable[[Alphabet], Quantity], alphabet: Alphabet, bounds: tuple[int, int]) -> Automaton:
    return with_total(quantity(alphabet), *bounds)
