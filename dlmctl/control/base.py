"""What a control is, and how controls combine.

A control is written for a single text: how many words it may have, and whether the finished words satisfy the control,
judged by other means than those that guided it. ``prepare`` prepares a batch of texts (``dlmctl.control.prepared``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from dlmctl.control import argument_checks, negation
from dlmctl.control.authored import ControlInterface
from dlmctl.control.check import Check, merge_checks, negated_check, normalised_checks
from dlmctl.control.clashes import refuse_clashes
from dlmctl.control.prepared import Part, Prepared, PreparedAll, call_author_code, lacks_energy
from dlmctl.control.representation import representation
from dlmctl.control.state import BatchContext, P
from dlmctl.control.warn_once import warn_once
from dlmctl.errors import UnknownWordError, UserError

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained

T = TypeVar("T")


class ControlParams(BaseModel):
    """Base of every control's parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Control(ControlInterface[P]):
    """Base class of controls.

    A subclass sets ``name`` and ``Params`` and defines ``check`` and ``prepare``; the rest is optional. In Python a
    control is constructed from its parameters, by keyword or in order (``Length(14, tolerance=1)``), or with ``each``
    from several sets of parameters.

    Attributes:
        Labels: what the classifier of the control learns, if it has one to train (``dlmctl.control.labels``).
        weight: share of the guidance; a class may set a default, which a recipe's ``weight`` multiplies.
        by_rejection: whether failed texts are redrawn by default, because nothing guides them.
        by_length: whether ``word_range`` is the whole condition, so that ``not`` requires any other number of words.
        measures: names of the values that its checks may have, which are columns of tables.
        asks_scorer: whether its check asks the model's scorer, so that a long run is not continued with another one.
        places: index of the set of parameters, for samples to which the sets are not dealt out in turn.
    """

    weight: float = 1.0
    places: Mapping[int, int] = {}

    def __init__(self, *args: Any, **params: Any) -> None:
        self.sets: tuple[P, ...] = (cast("P", argument_checks.params_from(type(self), args, params)),)

    @classmethod
    def each(cls, params: Iterable[P | Mapping[str, Any] | Any]) -> Control[P]:
        """Return one control with the i-th of ``params`` for sample i; further samples take them in turn again. Where
        only the first parameter is set, its value is enough: ``Length.each([5, 7])``.

        Raises:
            UserError: ``params`` is empty, or one of them does not validate.
        """
        sets = argument_checks.sets_from(cls, params)
        control = cls(**sets[0].model_dump(exclude_unset=True))
        control.sets = cast("tuple[P, ...]", sets)
        return control

    def under_not(self) -> Control[P]:
        """The control whose check ``not`` negates: itself, unless its check requires more than what is unwanted."""
        return self

    # Called by the toolkit, with the number of a sample. Errors in an author's code become one message.

    def dealt(self, sample: int) -> P:
        """The parameters of a sample: the sets are dealt out to the samples in turn, or by ``places``."""
        return self.sets[self.places.get(sample, sample) % len(self.sets)]

    def range_of(self, sample: int) -> tuple[int, int] | None:
        """Fewest and most words of a sample.

        Raises:
            UserError: the control's code fails, or returns anything else.
        """
        returned = self._call("word_range", lambda: self.word_range(self.dealt(sample)))
        span = self._validated(returned, argument_checks.range_fault(returned))
        return span and (max(1, span[0]), span[1])  # no text has 0 words

    def lengths_of(self, sample: int, most: int) -> Sequence[float] | None:
        """The ``lengths`` of a sample; None to use the model's own frequencies. Raises as ``range_of``."""
        counts = self._call("lengths", lambda: [float(count) for count in self.lengths(self.dealt(sample), most)])
        return self._validated(counts, argument_checks.lengths_fault(counts)) if any(counts) else None

    def clash_of(self, other: Control[P], sample: int) -> str | None:
        """``clash`` with another control of the same class, for a sample.

        Raises:
            UserError: the control's code fails, or returns anything else.
        """
        reason = self._call("clash", lambda: self.clash(self.dealt(sample), other.dealt(sample)))
        fault = None if reason is None or isinstance(reason, str) else "clash must return a string or None."
        return self._validated(reason, fault)

    def load_from(self, model: Pretrained) -> None:
        """Call ``attach``; errors in the author's code become a UserError."""
        self._call("attach", lambda: self.attach(model))

    def for_model(self, model: Pretrained) -> Control[P]:
        """A copy with ``attach`` called on it, so that what is loaded for one model does not affect the verdicts on the
        texts of another, drawn later or at the same time. Raises as ``load_from``."""
        attached = copy.copy(self)
        attached.load_from(model)
        return attached

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        """The control prepared for the samples of a batch.

        Raises:
            UserError: as ``prepare``, or its code fails.
        """
        own = replace(batch, params=[self.dealt(draw.sample) for draw in batch.draws])
        prepared = self._call("prepare", lambda: self.prepare(own))
        return self._validated(prepared, argument_checks.prepared_fault(prepared, own))

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        """The verdict on the text of each sample.

        Args:
            texts: the words of each text.
            written: each text as it was written, if known; otherwise judges of text spell the words out.

        Raises:
            UserError: the control's check fails, or returns anything but a ``Check`` with a score from 0 to 1.
        """
        params = [self.dealt(sample) for sample in samples]
        own = [list(words) for words in texts]  # copies, in case a check changes its words
        returned = self._call("check", lambda: list(self._run_checks(params, own, written)))
        self._validated(returned, argument_checks.check_many_fault(returned, texts))
        checks = self._call("check", lambda: normalised_checks(returned, texts, self.measures))
        return cast("list[Check]", self._validated(checks, argument_checks.verdicts_fault(checks, returned)))

    def _run_checks(
        self, params: Sequence[P], texts: Sequence[Sequence[str]], written: Sequence[str] | None
    ) -> Sequence[Check]:
        return self.check_many(params, texts) if written is None else self.check_written(params, texts, written)

    def loose(self) -> Control[P]:
        """The control that ``not`` negates.

        Raises:
            UserError: ``under_not`` fails, or returns anything else.
        """
        loose = self._call("under_not", self.under_not)
        if not isinstance(loose, Control):
            raise UserError(f"under_not must return a control, not {type(loose).__name__}.", where=self._location())
        return loose

    def __call__(self, words: Sequence[str]) -> Check:
        """The verdict on one text, a list of words, under the first set of parameters.

        Raises:
            UserError: as ``verdicts``, or the text is not split into words.
        """
        return self.verdicts([0], [argument_checks.words_from(self.name, words)])[0]

    def _location(self) -> str:
        return f"control {self.name!r} ({type(self).__module__})"

    def _call(self, member: str, call: Callable[[], T]) -> T:
        return call_author_code(member, call, lambda what: UserError(what, where=self._location()), f"has no {member}.")

    def _validated(self, returned: T, fault: str | None) -> T:
        """What the author's code returned, unless it has a fault."""
        if fault is not None:
            raise UserError(fault, where=self._location())
        return returned

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
            UserError: ``weight`` is not a number from 0 to 1e6.
        """
        return self.scaled(argument_checks.weight_from(self.name, weight))

    __rmul__ = __mul__

    def scaled(self, weight: float) -> Control[P]:
        """As ``*``, but by any number: a rare branch of `any` may need a factor beyond the bounds of recipes."""
        scaled = copy.copy(self)
        scaled.weight = self.weight * weight
        return scaled

    @property
    def share(self) -> float:
        """The weight set by the user, without the default of its class."""
        return self.weight / type(self).weight if type(self).weight else self.weight

    def __repr__(self) -> str:
        """As it is written in Python; of more than a few sets of parameters the first."""
        return representation(self)


class Composite(Control[ControlParams]):
    """Base of the combinations: passes every call on to its ``parts``.

    Raises:
        UserError: there are no parts, or one of them is not a control.
    """

    Params = ControlParams

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        super().__init__()
        self.parts = list(parts)
        if not self.parts:
            raise UserError("needs controls inside.", where=f"control {self.name!r}")
        for part in self.parts:
            if not isinstance(part, Control) or not hasattr(part, "sets"):
                raise argument_checks.no_control(part)

    def attach(self, model: Pretrained) -> None:
        for part in self.parts:
            part.load_from(model)

    def for_model(self, model: Pretrained) -> Control[ControlParams]:
        attached = copy.copy(self)
        attached.parts = [part.for_model(model) for part in self.parts]
        return attached

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


class All(Composite):
    """All parts must hold."""

    name = "all"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        flat: list[Control[Any]] = []
        for part in parts:
            flat.extend([part.weight * inner for inner in part.parts] if isinstance(part, All) else [part])
        super().__init__(flat)

    def range_of(self, sample: int) -> tuple[int, int] | None:
        """The overlap of the parts' ranges; fewest above most means that no length suits them all."""
        ranges = [span for part in self.parts if (span := part.range_of(sample)) is not None]
        return (max(low for low, _ in ranges), min(high for _, high in ranges)) if ranges else None

    def lengths_of(self, sample: int, most: int) -> Sequence[float] | None:
        """Those of the first part that has any."""
        return next((counts for part in self.parts if (counts := part.lengths_of(sample, most)) is not None), None)

    def ready(self, batch: BatchContext[Any]) -> PreparedAll:
        """All parts, prepared. Raises as ``Control.ready``, and UnsatisfiableError where two of them clash."""
        refuse_clashes(self.parts, [draw.sample for draw in batch.draws])
        return PreparedAll(self._ready(batch))

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        """Passed if all parts passed; the score is their mean."""
        return [merge_checks(row) for row in self._verdicts(samples, texts, written)]


class AnyOf(Composite):
    """At least one part must hold. Each text is guided to one, drawn by weight (``dlmctl.control.branches``).

    Raises:
        UserError: as ``Composite``, or no part has a weight above 0.
    """

    name = "any"

    def __init__(self, parts: Sequence[Control[Any]]) -> None:
        super().__init__(parts)
        if not any(part.weight > 0 for part in self.parts):
            raise UserError("`any` needs a control whose weight is above 0.")

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        """Never called: the branch that a draw settles on is prepared in place of the whole."""
        raise NotImplementedError("`any` is prepared by its branches")

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        """The verdict of the best part."""
        rows = self._verdicts(samples, texts, written)
        return [max(row, key=lambda check: (check.passed, check.score)) for row in rows]


class Not(Composite):
    """Its part must not hold."""

    name = "not"

    def __init__(self, part: Control[Any]) -> None:
        super().__init__([part])

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        (part,) = self.parts
        try:
            prepared = part.ready(batch)
        except UnknownWordError as error:  # no text can contain such a word, but it may be misspelt
            warn_once(f"not: {error}")
            prepared = part.ready(replace(batch, unwanted=True))
        exact = prepared.negated()
        if exact is not None or lacks_energy(prepared):
            return exact or Prepared()  # without a negation that guides, the check alone decides
        negated = negation.PreparedNot(Part(part.name, part.share, prepared))
        # Fixed numbers of words need no guidance.
        negated.exact = part.by_length and all(layout.words is not None for layout in batch.layouts)
        return negated

    def verdicts(
        self, samples: Sequence[int], texts: Sequence[Sequence[str]], written: Sequence[str] | None = None
    ) -> list[Check]:
        return [negated_check(check) for check in self.parts[0].loose().verdicts(samples, texts, written)]
