"""Exact controls as prepared controls: the demands of each row, joined into one automaton per row."""

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
    """Makes each row satisfy its demands exactly.

    The automata are built on first use, so that several of these controls can be ``merged`` before.

    Args:
        demands: the demands of each row of the batch.
    """

    exact = True

    def __init__(self, batch: BatchContext[Any], demands: Sequence[Sequence[D]]) -> None:
        self.batch, self.demands = batch, [list(row) for row in demands]

    @cached_property
    def joint(self) -> JointAutomata:
        """The joint automata of the rows.

        Raises:
            RecipeError: the demands of a row contradict each other, or exclude its number of words.
        """
        raise NotImplementedError

    def energy(self, state: ControlState) -> Tensor:
        """-log p(the text is in the language), with words assumed independent."""
        return -self.joint.log_probability(state.word_log_probs)

    def constrain(self, logits: Tensor, t: Tensor) -> Tensor:
        return self.joint.constrain(logits, t)

    def draw(self, logits: Tensor, likely: Tensor, uniform: Tensor) -> Tensor:
        return self.joint.draw(logits, likely, uniform)

    def phase(self, t: float) -> bool:
        return t < SETTLED

    def verify(self, logits: Tensor) -> None:
        self.joint.verify(logits)

    def negated(self) -> Self | None:
        """An exact control that makes each row violate its demands; None if there is no such automaton.

        Raises:
            RecipeError: every text satisfies the demands of a row.
            TooLarge: a row demands too many phrases.
        """
        raise NotImplementedError


class EvidenceAlone(Prepared):
    """The evidence of an exact control that was merged with others."""

    def __init__(self, evidence: Tensor) -> None:
        self.evidence = evidence


def merged(parts: Sequence[Part]) -> list[Part]:
    """The parts, with all ``ExactRows`` merged into one in the place of the first, and their evidence at the end.

    Conditioning on one after the other, each would partly undo the one before, and none would be exact.
    """
    exact = [part for part in parts if isinstance(part.prepared, ExactRows)]
    if len(exact) < 2:
        return list(parts)
    controls = [part.prepared for part in parts if isinstance(part.prepared, ExactRows)]
    rows = [
        [demand for demands in row for demand in demands]
        for row in zip(*(control.demands for control in controls), strict=True)
    ]
    name = " and ".join(part.name for part in exact)
    weight = sum(part.weight for part in exact) / len(exact)
    # All are of one type, over words or over tokens, depending on the model's vocabulary.
    merged_part = Part(name, weight, type(controls[0])(controls[0].batch, rows))
    pairs = [(part, part.prepared.evidence) for part in exact if part.prepared.evidence is not None]
    evidence = [part._replace(prepared=EvidenceAlone(tensor)) for part, tensor in pairs]
    others = [merged_part if part is exact[0] else part for part in parts if part is exact[0] or part not in exact]
    return [*others, *evidence]
