"""Exact controls as prepared controls: what each asks of a row, joined into one automaton a row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Generic, Self, TypeVar

from torch import Tensor

from dlmctl.control.automata.joint import SETTLED, JointAutomata
from dlmctl.control.prepared import Part, Prepared
from dlmctl.control.state import BatchContext, ControlState

D = TypeVar("D")


class ExactRows(Prepared, Generic[D]):
    """Holds each row to its demands, exactly. The automata are built when first needed, so that several of these can
    be ``merged`` before.

    Args:
        demands: of each row of the batch.
    """

    exact = True

    def __init__(self, batch: BatchContext[Any], demands: Sequence[Sequence[D]]) -> None:
        self.batch, self.demands = batch, [list(row) for row in demands]

    @cached_property
    def held(self) -> JointAutomata:
        """The languages of the rows.

        Raises:
            RecipeError: the demands of a row exclude each other, or its number of words.
        """
        raise NotImplementedError

    def energy(self, state: ControlState) -> Tensor:
        """-log p(the text is in the language), the words taken as independent."""
        return -self.held.log_probability(state.word_log_probs)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        return self.held.constrain(logits, t)

    def phase(self, t: float) -> bool:
        return t < SETTLED

    def verify(self, logits: Tensor) -> None:
        self.held.verify(logits)

    def negated(self) -> Self:
        """What holds each row to the contrary of its demands, as exactly.

        Raises:
            RecipeError: every text satisfies the demands of a row.
            TooLarge: a row asks for too many phrases.
        """
        raise NotImplementedError


def merged(parts: Sequence[Part]) -> list[Part]:
    """The parts with all that are ``ExactRows`` made one, in the place of the first.

    Conditioned one after the other, each undoes a little of the last and none is exact.
    """
    exact = [part for part in parts if isinstance(part.prepared, ExactRows)]
    if len(exact) < 2:
        return list(parts)
    held = [part.prepared for part in parts if isinstance(part.prepared, ExactRows)]
    rows = [[demand for row in same for demand in row] for same in zip(*(one.demands for one in held), strict=True)]
    name = " and ".join(part.name for part in exact)
    weight = sum(part.weight for part in exact) / len(exact)
    # All of words or all of tokens, as the model's vocabulary is.
    whole = Part(name, weight, type(held[0])(held[0].batch, rows))
    return [whole if part is exact[0] else part for part in parts if part is exact[0] or part not in exact]
