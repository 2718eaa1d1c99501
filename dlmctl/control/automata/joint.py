"""Texts of a batch held to what several controls ask of their words together, each by one automaton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmctl.control.automata import posterior
from dlmctl.control.automata.dfa import Automaton, Bools
from dlmctl.control.automata.languages import Alphabet, everything
from dlmctl.control.automata.phrases import Language, in_likely_order, with_phrases
from dlmctl.control.automata.product import joined, lengths, require_length
from dlmctl.control.automata.transitions import stacked
from dlmctl.errors import RecipeError, Unfit

# From this time on words are held to the likeliest way to be in the language; before, to all ways by their probability.
SETTLED = 0.7
# Power of the probabilities by which phrases are spread over their places: 1 is Bayes' rule for independent words, but
# words are not independent, and texts with required phrases were more fluent with 2 (1.98 against 2.06 nats a word).
SHARPNESS = 2.0


class Demand(NamedTuple):
    """What one control asks of the words of one text.

    Attributes:
        name: of the control, for messages.
        automaton: the language the text is to be in; None for any.
        phrases: token ids of phrases that are all to occur, in any order.
    """

    name: str
    automaton: Automaton | None = None
    phrases: tuple[tuple[int, ...], ...] = ()


def language_of(demands: Sequence[Demand], alphabet: Alphabet) -> Language:
    """The language of the texts that satisfy every demand.

    Raises:
        RecipeError: there is no such text.
        TooLarge: its automaton would be too large.
    """
    parts = [(demand.name, demand.automaton) for demand in demands if demand.automaton is not None]
    base = joined(parts) if parts else everything(alphabet)
    return with_phrases(base, [phrase for demand in demands for phrase in demand.phrases], alphabet)


def possible_lengths(language: Language, longest: int) -> Bools:
    """Whether texts of 0 to ``longest`` words can be in a language; with phrases to be ordered, no more than may be."""
    return lengths(language.automaton, longest) & (np.arange(longest + 1) >= language.least_words)


class JointAutomata:
    """The languages of a batch, one for each row; word logits in, word logits out.

    Args:
        languages: of each row; rows may share one.
        words: how many words each row has; they stand behind START.
        longest: the most words a text of the model can have, for the message.
        names: what each row's language is of, such as ``pattern and contains``.
        sharpness: of each row (``posterior.condition``).
        unit: what the languages are over: words or tokens.

    Raises:
        Unfit: a row has no text of so many words.
    """

    def __init__(
        self,
        languages: Sequence[Language],
        words: Sequence[int],
        *,
        alphabet: Alphabet,
        longest: int,
        names: Sequence[str],
        sharpness: Sequence[float],
        unit: Literal["word", "token"] = "word",
        device: torch.device | str = "cpu",
    ) -> None:
        for language, count, name in zip(languages, words, names, strict=True):
            require_length(language.automaton, count, longest, name, unit)
        self.languages, self.alphabet, self.names = list(languages), alphabet, list(names)
        self.unit = unit
        self.words, self.most = torch.tensor(words, device=device), max(words)
        self.sharpness = torch.tensor(sharpness, device=device)[:, None, None]
        # Automata whose order of phrases equal words settled: if the words of the model lead to none, these serve.
        self.possible: dict[int, Automaton] = {}
        self._begin()

    def _begin(self) -> None:
        self.rows = [language.automaton for language in self.languages]
        # Rows whose phrases have no order yet, so that `rows` leaves the phrases out.
        self.unordered = [row for row, language in enumerate(self.languages) if language.phrases]
        self.automata = stacked(self.rows, self.words.device)

    def log_probability(self, log_probs: Tensor) -> Tensor:
        """``[B]``: log-probability of the language under independent words ``[B, L, V]``; its negative is an energy."""
        self._settle_order(log_probs.detach())
        return posterior.log_probability(log_probs, self.automata, self.words, most=self.most)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` given that the text is in the language; at t = 0 their arg max is in it."""
        self._settle_order(logits)
        if float(t[0]) < SETTLED:
            return posterior.likeliest(logits, self.automata, self.words, most=self.most)
        return posterior.condition(logits, self.automata, self.words, sharpness=self.sharpness, most=self.most)

    def verify(self, logits: Tensor) -> None:
        """Asked before the first step, with -inf in ``logits [B, L, V]`` for what else excludes a word.

        An order of phrases that was settled before is forgotten.

        Raises:
            Unfit: a row has no text left.
        """
        self.possible.clear()
        self._begin()
        for row in self.unordered:
            self.possible[row] = self._order(row, logits)
        left = torch.isfinite(posterior.log_probability(logits, self.automata, self.words))
        for row in (~left).nonzero().flatten().tolist():
            raise Unfit(
                f"no text of {int(self.words[row])} {self.unit}s is left that satisfies it.",
                where=self.names[row],
                remedy="Another control forbids its words or wants others in their places.",
            )

    def _order(self, row: int, logits: Tensor) -> Automaton:
        scores = logits[row, 1 : 1 + int(self.words[row])].log_softmax(-1)
        try:
            return in_likely_order(self.languages[row], scores, self.alphabet)
        except RecipeError as error:
            if row in self.possible:
                return self.possible[row]
            raise type(error)(error.what, where=self.names[row], remedy=error.remedy) from None

    def _settle_order(self, logits: Tensor) -> None:
        """Fixes the order of phrases that are too many for any order, by the first distribution that is seen."""
        if not self.unordered:
            return
        for row in self.unordered:
            self.rows[row] = self._order(row, logits)
        self.unordered = []
        self.automata = stacked(self.rows, logits.device)
