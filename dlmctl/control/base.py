"""What a control is, and how controls combine.

A control is written for one text: how many words it may have, and whether finished words are what was asked for, judged
by other means than what guided. ``prepare`` lays the controls of a batch out for the sampler; see
``dlmctl.control.prepared``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from dlmctl.control import argument_checks
from dlmctl.control.authored import Written
from dlmctl.control.check import Check, joined, settled, turned_round
from dlmctl.control.clashes import refuse_clashes
from dlmctl.control.prepared import Part, Prepared, PreparedAll, PreparedNot, asked, lacks_energy
from dlmctl.control.state import BatchContext, P
from dlmctl.control.warn_once import warn_once
from dlmctl.errors import Unknown, UserError

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained

T = TypeVar("T")


class ControlParams(BaseModel):
    """Base of every control's parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Control(Written[P]):
    """Base class of controls.

    A subclass sets ``name`` and ``Params`` and gives ``check`` and ``prepare``; the rest is optional. In Python it is
    made from its parameters, by name or in their order (``Length(14, tolerance=1)``), or by ``each`` from many sets.

    Attributes:
        Labels: of a control with a classifier to train, what the classifier learns (``dlmctl.control.labels``).
        weight: a share of the guidance; a class may bring its own, which a recipe's ``weight`` multiplies.
        by_rejection: whether texts that fail are to be drawn again where nothing is said, as nothing guides them.
        by_length: whether ``word_range`` is all that is asked, so that under ``not`` a text has any other number.
        places: of samples that are not dealt a set in turn, which one they have.
    """

    weight: float = 1.0
    places: Mapping[int, int] = {}

    def __init__(self, *first: Any, **params: Any) -> None:
        self.sets: tuple[P, ...] = (cast("P", argument_checks.params_from(type(self), first, params)),)

    @classmethod
    def each(cls, params: Sequence[P | Mapping[str, Any]]) -> Control[P]:
        """One control whose sample i has ``params[i]``; they are dealt out in turn where there are more samples.

        Raises:
            UserError: there are none, or a mapping does not validate.
        """
        sets = argument_checks.sets_from(cls, params)
        made = cls(**sets[0].model_dump(exclude_unset=True))
        made.sets = cast("tuple[P, ...]", sets)
        return made

    def under_not(self) -> Control[P]:
        """The control whose check ``not`` turns round: itself, unless its check asks for more than what is unwanted."""
        return self

    # What the toolkit asks: for samples by their number. Faults of an author's code become one message.

    def dealt(self, sample: int) -> P:
        """The parameters of a sample: the sets are dealt out to the samples in turn, or by ``places``."""
        return self.sets[self.places.get(sample, sample) % len(self.sets)]

    def range_of(self, sample: int) -> tuple[int, int] | None:
        """Fewest and most words of a sample.

        Raises:
            UserError: the control's code fails, or gives something else.
        """
        found = self._asked("word_range", lambda: self.word_range(self.dealt(sample)))
        sound = self._sound(found, argument_checks.range_fault(found))
        return sound and (max(1, sound[0]), sound[1])  # no text has 0 words

    def lengths_of(self, sample: int, most: int) -> Sequence[float] | None:
        """The ``lengths`` of a sample; None to go by the model's own numbers. Raises as ``range_of``."""
        found = self._asked("lengths", lambda: [float(one) for one in self.lengths(self.dealt(sample), most)])
        return self._sound(found, argument_checks.lengths_fault(found)) if any(found) else None

    def clash_of(self, other: Control[P], sample: int) -> str | None:
        """``clash`` with another control of this kind, of a sample.

        Raises:
            UserError: the control's code fails, or gives something else.
        """
        found = self._asked("clash", lambda: self.clash(self.dealt(sample), other.dealt(sample)))
        fault = None if found is None or isinstance(found, str) else "clash must give a text or None."
        return self._sound(found, fault)

    def load_from(self, model: Pretrained) -> None:
        """``attach``, of which a fault of the author's code is a UserError too."""
        self._asked("attach", lambda: self.attach(model))

    def for_model(self, model: Pretrained) -> Control[P]:
        """A copy that ``attach`` is called on, so that what is loaded from beside one model stays out of the verdicts
        on the texts of another, drawn later or at the same time. Raises as ``load_from``."""
        found = copy.copy(self)
        found.load_from(model)
        return found

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        """The control laid out for the samples of a batch.

        Raises:
            UserError: as ``prepare``, or its code fails.
        """
        own = replace(batch, params=[self.dealt(draw.sample) for draw in batch.draws])
        found = self._asked("prepare", lambda: self.prepare(own))
        return self._sound(found, argument_checks.prepared_fault(found, own))

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        """The verdict on the text of each sample.

        Args:
            texts: the words of each.
            written: each as it was written, where that is known; else judges of text spell the words out.

        Raises:
            UserError: the control's check fails, or gives something else than a ``Check`` with a score from 0 to 1.
        """
        params = [self.dealt(sample) for sample in samples]
        own = [list(words) for words in texts]  # a check that changes its words changes no text
        judged = self._asked("check", lambda: list(self._judged(params, own, written)))
        self._sound(judged, argument_checks.check_many_fault(judged, texts))
        found = self._asked("check", lambda: [settled(one, len(text)) for one, text in zip(judged, texts, strict=True)])
        return cast("list[Check]", self._sound(found, argument_checks.verdicts_fault(found, judged)))

    def _judged(
        self, params: Sequence[P], texts: Sequence[Sequence[str]], written: Sequence[str] | None
    ) -> Sequence[Check]:
        return self.check_many(params, texts) if written is None else self.check_written(params, texts, written)

    def loose(self) -> Control[P]:
        """What ``not`` turns round.

        Raises:
            UserError: as of ``under_not``.
        """
        found = self._asked("under_not", self.under_not)
        if not isinstance(found, Control):
            raise UserError(f"under_not must give a control, not {type(found).__name__}.", where=self._whose())
        return found

    def __call__(self, words: Sequence[str]) -> Check:
        """The verdict on one text, given as words, by the first set of parameters.

        Raises:
            UserError: as ``verdicts``, or the text is not split into words.
        """
        return self.verdicts([0], [argument_checks.words_from(self.name, words)])[0]

    def _whose(self) -> str:
        return f"control {self.name!r} ({type(self).__module__})"

    def _asked(self, member: str, call: Callable[[], T]) -> T:
        return asked(member, call, lambda what: UserError(what, where=self._whose()), f"has no {member}.")

    def _sound(self, found: T, fault: str | None) -> T:
        """What the author's code gave, unless there is a fault in it."""
        if fault is not None:
            raise UserError(fault, where=self._whose())
        return found

    # How controls combine.

    def __and__(self, other: Control[Any]) -> Control[Any]:
        return All([self, other])

    def __or__(self, other: Control[Any]) -> Control[Any]:
        return AnyOf([self, other])

    def __invert__(self) -> Control[Any]:
        return self.parts[0] if isinstance(self, Not) else Not(self)

    def __mul__(self, weight: float) -> Control[P]:
        """``0.5 * control``: the same control with its weight scaled.

        Raises:
            UserError: it is no number from 0 to 1e6.
        """
        return self.scaled(argument_checks.weight_from(self.name, weight))

    __rmul__ = __mul__

    def scaled(self, weight: float) -> Control[P]:
        """The same control with its weight scaled by any number; a rare branch of `any` has a share that nobody asks
        for."""
        found = copy.copy(self)
        found.weight = self.weight * weight
        return found

    @property
    def share(self) -> float:
        """The weight that it was given, without what its class brings."""
        return self.weight / type(self).weight if type(self).weight else self.weight

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.sets[0].model_dump().items())})"


class Composite(Control[ControlParams]):
    """Base of the combinations: passes every call on to its ``parts``.

    Raises:
        UserError: there are no parts, or one is no control.
    """

    Params = ControlParams

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        super().__init__()
        self.parts = list(parts)
        if not self.parts:
            raise UserError("needs controls inside.", where=f"control {self.name!r}")
        for part in self.parts:
            if not isinstance(part, Control):
                raise UserError(f"{part!r} is not a control.", remedy='A control is an object such as Contains("pub").')

    def attach(self, model: Pretrained) -> None:
        for part in self.parts:
            part.load_from(model)

    def for_model(self, model: Pretrained) -> Control[ControlParams]:
        found = copy.copy(self)
        found.parts = [part.for_model(model) for part in self.parts]
        return found

    def checks_aside(self) -> bool:
        return all(part.checks_aside() for part in self.parts)

    def under_not(self) -> Control[Any]:
        loose = copy.copy(self)
        loose.parts = [part.loose() for part in self.parts]
        return loose

    def _ready(self, batch: BatchContext[Any]) -> list[Part]:
        return [Part(part.name, part.weight, part.ready(batch)) for part in self.parts]

    def _verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None
    ) -> list[tuple[Check, ...]]:
        return list(zip(*(part.verdicts(samples, texts, written) for part in self.parts), strict=True))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts!r})"


class All(Composite):
    """Every part is to hold."""

    name = "all"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        flat: list[Control[Any]] = []
        for part in parts:
            flat.extend([part.weight * one for one in part.parts] if isinstance(part, All) else [part])
        super().__init__(flat)

    def range_of(self, sample: int) -> tuple[int, int] | None:
        """The overlap of the parts' ranges; fewest above most means that no length serves them all."""
        ranges = [found for part in self.parts if (found := part.range_of(sample)) is not None]
        return (max(low for low, _ in ranges), min(high for _, high in ranges)) if ranges else None

    def lengths_of(self, sample: int, most: int) -> Sequence[float] | None:
        """Those of the first part that has any."""
        return next((found for part in self.parts if (found := part.lengths_of(sample, most)) is not None), None)

    def ready(self, batch: BatchContext[Any]) -> PreparedAll:
        """All parts. Raises as of a control, and Unmet where two of them clash."""
        refuse_clashes(self.parts, [draw.sample for draw in batch.draws])
        return PreparedAll(self._ready(batch))

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        """Passed if all parts passed; the score is their mean."""
        return [joined(row) for row in self._verdicts(samples, texts, written)]


class AnyOf(Composite):
    """At least one part is to hold. A text is led to one, by their weights (``dlmctl.control.branches``).

    Raises:
        UserError: as of ``Composite``, or no part has a weight above 0.
    """

    name = "any"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        super().__init__(parts)
        if not any(part.weight > 0 for part in self.parts):
            raise UserError("`any` needs a control whose weight is above 0.")

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        """Never laid out as a whole: the branch that a draw settles on is, in its place."""
        raise NotImplementedError("`any` is laid out by its branches")

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        """The best part decides."""
        rows = self._verdicts(samples, texts, written)
        return [max(row, key=lambda check: (check.passed, check.score)) for row in rows]


class Not(Composite):
    """One part is not to hold."""

    name = "not"

    def __init__(self, part: Control[Any]) -> None:
        super().__init__([part])

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        (part,) = self.parts
        try:
            prepared = part.ready(batch)
        except Unknown as error:  # no text has such a word, but it may be misspelt
            warn_once(f"not: {error}")
            prepared = part.ready(replace(batch, unwanted=True))
        exact = prepared.negated()
        if exact is not None or lacks_energy(prepared):
            return exact or Prepared()  # what has no contrary that guides is left to the check
        found = PreparedNot(Part(part.name, part.share, prepared))
        # Numbers of words that are settled need no guidance.
        found.exact = part.by_length and all(layout.words is not None for layout in batch.layouts)
        return found

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        rows = self.parts[0].loose().verdicts(samples, texts, written)
        return [turned_round(check) for check in rows]
