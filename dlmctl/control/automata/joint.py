"""Joint exact inference on a batch: what several controls demand of the words of a text, in one automaton per row."""

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
from dlmctl.control.automata.product import intersect_all, lengths, require_length
from dlmctl.control.automata.spans import spans_of
from dlmctl.control.automata.transitions import stacked
from dlmctl.errors import LayoutError, RecipeError

# Below this time words are restricted to the likeliest path of the automaton (arg max); before, they are conditioned on
# all paths by their probability.
SETTLED = 0.7
# Power of the probabilities that distribute phrases over positions: 1 is Bayes' rule for independent words, but words
# are not independent, and texts with required phrases were more fluent with 2 (1.98 against 2.06 nats per word).
SHARPNESS = 2.0


class Demand(NamedTuple):
    """The demand of one control on the words of one text.

    Attributes:
        name: name of the control, for messages.
        automaton: the language that the text must be in; None for any.
        phrases: token ids of phrases that must all occur, in any order.
    """

    name: str
    automaton: Automaton | None = None
    phrases: tuple[tuple[int, ...], ...] = ()


def language_of(demands: Sequence[Demand], alphabet: Alphabet) -> Language:
    """The language of the texts that satisfy all demands.

    Raises:
        RecipeError: there is no such text.
        TooLarge: its automaton would be too large.
    """
    parts = [(demand.name, demand.automaton) for demand in demands if demand.automaton is not None]
    base = intersect_all(parts) if parts else everything(alphabet)
    return with_phrases(base, [phrase for demand in demands for phrase in demand.phrases], alphabet)


def possible_lengths(language: Language, longest: int) -> Bools:
    """Whether a language can have texts of n words, for n from 0 to ``longest``.

    If the language has phrases whose order is open, a length that is reported as possible may still be impossible.
    """
    return lengths(language.automaton, longest) & (np.arange(longest + 1) >= language.least_words)


class JointAutomata:
    """The languages of a batch, one for each row; maps word logits to word logits.

    Args:
        languages: the language of each row; rows may share one.
        words: the number of words of each row, after START.
        longest: the most words that a text of the model can have, for the message.
        names: the controls of each row, such as ``pattern and contains``.
        sharpness: of each row (``posterior.condition``).
        unit: what the languages are over, words or tokens.

    Raises:
        LayoutError: the language of a row has no text with that number of words.
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
        # Rows often share a language and a number of words.
        rows = zip(languages, words, names, strict=True)
        for language, count, name in {(id(row[0]), row[1]): row for row in rows}.values():
            require_length(language.automaton, count, longest, name, unit)
        self.languages, self.alphabet, self.names = list(languages), alphabet, list(names)
        self.unit = unit
        self.words = list(words)
        self.spans = spans_of(torch.tensor(words, device=device), max(words))
        is_bayes = all(power == 1.0 for power in sharpness)
        self.sharpness = 1.0 if is_bayes else torch.tensor(sharpness, device=device)[:, None, None]
        # Automata with an order of phrases found for uniform logits: used if none is found for the model's logits.
        self.fallbacks: dict[int, Automaton] = {}
        self._reset()

    def _reset(self) -> None:
        self.rows = [language.automaton for language in self.languages]
        # Rows whose phrases have no order yet; their automata in `rows` do not include the phrases.
        self.unordered = [row for row, language in enumerate(self.languages) if language.phrases]
        self.automata = stacked(self.rows, self.spans.within.device)

    def log_probability(self, log_probs: Tensor) -> Tensor:
        """Log-probability ``[B]`` of the language for independent words ``[B, L, V]``; its negative is an energy."""
        self._settle_order(log_probs.detach())
        return posterior.log_probability(log_probs, self.automata, self.spans)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` given that the text is in the language; at t = 0 their arg max is in it."""
        self._settle_order(logits)
        if float(t[0]) < SETTLED:
            return posterior.likeliest(logits, self.automata, self.spans)
        return posterior.condition(logits, self.automata, self.spans, sharpness=self.sharpness)

    def draw(self, logits: Tensor, likely: Tensor, uniform: Tensor) -> Tensor:
        """As ``Prepared.draw``."""
        self._settle_order(logits)
        return posterior.draw(logits, likely, self.automata, self.spans, uniform, sharpness=self.sharpness)

    def verify(self, logits: Tensor) -> None:
        """Check before the first step that every row has a text that satisfies it.

        An order of phrases that was settled before is forgotten.

        Args:
            logits: ``[B, L, V]``, -inf for words that are excluded elsewhere, as by other controls.

        Raises:
            LayoutError: a row has no text left.
        """
        self.fallbacks.clear()
        self._reset()
        for row in self.unordered:
            self.fallbacks[row] = self._order(row, logits)
        is_possible = torch.isfinite(posterior.log_probability(logits, self.automata, self.spans))
        for row in (~is_possible).nonzero().flatten().tolist():
            raise LayoutError(
                f"no text of {self.words[row]} {self.unit}s is left that satisfies it.",
                where=self.names[row],
                remedy="Another control forbids its words, or wants other words in their place.",
            )

    def _order(self, row: int, logits: Tensor) -> Automaton:
        scores = logits[row, 1 : 1 + self.words[row]].log_softmax(-1)
        try:
            return in_likely_order(self.languages[row], scores, self.alphabet)
        except RecipeError as error:
            if row in self.fallbacks:
                return self.fallbacks[row]
            raise type(error)(error.what, where=self.names[row], remedy=error.remedy) from None

    def _settle_order(self, logits: Tensor) -> None:
        """Fix the order of phrases that are too many for any order, by the first ``logits [B, L, V]`` seen."""
        if not self.unordered:
            return
        for row in self.unordered:
            self.rows[row] = self._order(row, logits)
        self.unordered = []
        self.automata = stacked(self.rows, logits.device)
