"""What a control is, how controls combine, and where they are found.

A control gives an ``energy`` that guidance pushes down at every reverse step, may ``project`` the x_0 estimate
onto an exact constraint, and ``check``s the finished words by other means than the network that guided.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from dlmctl.control.state import ControlState, Setting
from dlmctl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from dlmctl.checkpoint.pretrained import Pretrained


class Check(NamedTuple):
    """The verdict on one text: ``score`` in [0, 1], whether it ``passed``, and ``why`` in a few words."""

    score: float
    passed: bool
    why: str


class ControlParams(BaseModel):
    """Base of every control's parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


P = TypeVar("P", bound=BaseModel)


class Control(Generic[P]):
    """Base class of controls.

    A subclass sets ``name`` and ``Params`` and gives ``energy`` and ``check``; the rest is optional. In Python
    it is made from its parameters (``Pos(tags=["DET", "NOUN"])``), or with ``each`` from one set of parameters
    per sample.
    """

    name: ClassVar[str]
    Params: ClassVar[type[BaseModel]]
    # A share of the guidance; a class may bring its own, which a recipe's `weight` then multiplies.
    weight: float = 1.0
    # Whether `restrict`, `condition` and `project` alone satisfy it: then its energy need not guide word logits.
    exact: ClassVar[bool] = False
    # Whether its energy leaves out what is not `inside`, so that texts of different canvases may share a batch.
    ragged: bool = False

    def __init__(self, **params: Any) -> None:
        self.params: list[P] = [self.Params.model_validate(params)]  # type: ignore[list-item]

    @classmethod
    def each(cls, params: Sequence[P]) -> Control[P]:
        """One control whose sample i has ``params[i]``."""
        made = cls.__new__(cls)
        made.params = list(params)
        return made

    def of(self, sample: int) -> P:
        """The parameters of a sample: the sets are dealt out to the samples in turn."""
        return self.params[sample % len(self.params)]

    def only(self, samples: Sequence[int]) -> Control[P]:
        """The same control for some samples only, in that order."""
        chosen = copy.copy(self)
        chosen.params = [self.of(sample) for sample in samples]
        return chosen

    # What subclasses give.

    def word_count(self, sample: int) -> tuple[int, int] | None:
        """Fewest and most words that a text of this sample can have, or None for any number.

        Asked with this, the number is settled before the first step and START, END and PAD are pinned accordingly.
        """
        return None

    def attach(self, pretrained: Pretrained) -> None:
        """Load what the check needs from beside the model. Called once, before anything is drawn.

        Raises:
            UserError: it is missing, or the parameters do not fit it.
        """

    def prepare(self, setting: Setting) -> None:
        """Load weights and lay out targets for a batch.

        Called before its first step and, on a fresh copy, again for the rows that are left when others are done.

        Raises:
            UserError: the weights are missing, or the parameters cannot be met by this model.
        """

    def energy(self, state: ControlState) -> Tensor:
        """How far each sample is from what is wanted: ``[B]``, in nats, lower is better, differentiable."""
        raise NotImplementedError

    def restrict(self, logits: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` with -inf where a word is out of the question. Asked at every step."""
        return logits

    def condition(self, logits: Tensor, t: Tensor) -> Tensor:
        """Word logits ``[B, L, V]`` given that the constraint holds, where that can be said exactly.

        For constraints that no single position decides. Asked at every step, times ``t [B]``, after ``restrict`` of
        every control and after guidance; with t = 0 for the finished text, whose words are the likeliest ones.
        """
        return logits

    def verify(self, logits: Tensor) -> None:
        """Asked before the first step, with -inf in ``logits [B, L, V]`` for what all controls together exclude.

        Raises:
            RecipeError: nothing that is left can satisfy this control.
        """

    def project(self, x0: Tensor, state: ControlState) -> Tensor:
        """Exact constraints written into the x_0 estimate ``[B, L, D]``."""
        return x0

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """The verdict on each finished text, given as words."""
        raise NotImplementedError

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[P]:
        """For each sentence the parameters that it satisfies itself.

        Raises:
            UserError: this control has no such thing.
        """
        raise UserError(f"the control {cls.name!r} cannot take its targets from sentences.")

    @classmethod
    def from_target(cls, record: Any) -> P:
        """The parameters that one JSON value of a file of targets asks for (``dlmctl evaluate control``).

        By default what the list ``words`` of an object satisfies, else the parameters that the object holds.

        Raises:
            ValueError, KeyError, TypeError: the value is no target of this control.
        """
        words = record.get("words") if isinstance(record, dict) else None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return cls.from_words([words])[0]
        return cast("P", cls.Params.model_validate(record))

    # How controls combine.

    def __and__(self, other: Control[Any]) -> Control[Any]:
        return All([self, other])

    def __or__(self, other: Control[Any]) -> Control[Any]:
        return AnyOf([self, other])

    def __invert__(self) -> Control[Any]:
        return Not(self)

    def __rmul__(self, weight: float) -> Control[P]:
        """``0.5 * control``: the same control with its weight scaled."""
        scaled = copy.copy(self)
        scaled.weight = self.weight * weight
        return scaled

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.params[0].model_dump().items())})"


# -log p of a control that is all but satisfied; below it the negation would grow without bound.
SMALLEST_ENERGY = 1e-3


class Composite(Control[ControlParams]):
    """Base of the combinations: passes every call on to its ``parts``."""

    Params = ControlParams

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        self.params = [ControlParams()]
        self.parts = list(parts)
        self.ragged = all(part.ragged for part in self.parts)

    def only(self, samples: Sequence[int]) -> Control[Any]:
        chosen = copy.copy(self)
        chosen.parts = [part.only(samples) for part in self.parts]
        return chosen

    def attach(self, pretrained: Pretrained) -> None:
        for part in self.parts:
            part.attach(pretrained)

    def prepare(self, setting: Setting) -> None:
        for part in self.parts:
            part.prepare(setting)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts!r})"


class All(Composite):
    """Every part: the weighted sum of the energies, all projections in turn."""

    name = "all"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        flat: list[Control[Any]] = []
        for part in parts:
            nested = part.parts if isinstance(part, All) and part.weight == 1 else [part]
            flat.extend(nested)
        super().__init__(flat)

    def word_count(self, sample: int) -> tuple[int, int] | None:
        """The overlap of the parts' ranges; fewest above most means that no length serves them all."""
        ranges = [found for part in self.parts if (found := part.word_count(sample)) is not None]
        return (max(low for low, _ in ranges), min(high for _, high in ranges)) if ranges else None

    def energy(self, state: ControlState) -> Tensor:
        total = self.parts[0].weight * self.parts[0].energy(state)
        for part in self.parts[1:]:
            total = total + part.weight * part.energy(state)
        return total

    def restrict(self, logits: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.restrict(logits)
        return logits

    def condition(self, logits: Tensor, t: Tensor) -> Tensor:
        for part in self.parts:
            logits = part.condition(logits, t)
        return logits

    def verify(self, logits: Tensor) -> None:
        for part in self.parts:
            part.verify(logits)

    def project(self, x0: Tensor, state: ControlState) -> Tensor:
        for part in self.parts:
            x0 = part.project(x0, state)
        return x0

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """Passed if all parts passed; the score is their mean."""
        return [
            Check(sum(c.score for c in row) / len(row), all(c.passed for c in row), "; ".join(c.why for c in row))
            for row in zip(*(part.check(words) for part in self.parts), strict=True)
        ]


def parts_of(control: Control[Any]) -> list[Control[Any]]:
    """The controls that are all to hold: the parts of an ``All``, or the control alone."""
    return control.parts if isinstance(control, All) else [control]


class AnyOf(Composite):
    """At least one part: a soft minimum of the weighted energies, -log sum exp(-E)."""

    name = "any"

    def energy(self, state: ControlState) -> Tensor:
        first, *others = (-part.weight * part.energy(state) for part in self.parts)
        for other in others:
            first = first.logaddexp(other)
        return -first

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        """The best part decides."""
        checks = zip(*(part.check(words) for part in self.parts), strict=True)
        return [max(row, key=lambda check: (check.passed, check.score)) for row in checks]


class Not(Composite):
    """The contrary of one part: for an energy -log p, -log(1 - p), bounded where p nears 1."""

    name = "not"

    def __init__(self, part: Control[Any]) -> None:
        super().__init__([part])

    def energy(self, state: ControlState) -> Tensor:
        return -(-(-self.parts[0].energy(state).clamp(min=SMALLEST_ENERGY)).expm1()).log()

    def check(self, words: Sequence[Sequence[str]]) -> list[Check]:
        return [Check(1 - c.score, not c.passed, f"not: {c.why}") for c in self.parts[0].check(words)]
