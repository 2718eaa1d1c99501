"""What a control is, and how controls combine.

A control is written for one text: how many words it may have, and whether finished words are what was asked for, judged
by other means than what guided. ``prepare`` lays the controls of a batch out for the sampler; see
``dlmctl.control.prepared``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from dlmctl.control import given
from dlmctl.control.check import Check, settled
from dlmctl.control.prepared import Lacking, Prepared, asked
from dlmctl.control.state import BatchContext, P
from dlmctl.errors import UserError

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained
    from dlmctl.control.labels import Labels as LabelsOf

T = TypeVar("T")


class ControlParams(BaseModel):
    """Base of every control's parameters: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Control(Generic[P]):
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

    name: ClassVar[str]
    Params: ClassVar[type[BaseModel]]
    Labels: ClassVar[type[LabelsOf] | None] = None
    weight: float = 1.0
    by_rejection: ClassVar[bool] = False
    by_length: ClassVar[bool] = False
    places: Mapping[int, int] = {}

    def __init__(self, *first: Any, **params: Any) -> None:
        self.sets: tuple[P, ...] = (cast("P", given.params_from(type(self), first, params)),)

    @classmethod
    def each(cls, params: Sequence[P | Mapping[str, Any]]) -> Control[P]:
        """One control whose sample i has ``params[i]``; they are dealt out in turn where there are more samples.

        Raises:
            UserError: there are none, or a mapping does not validate.
        """
        sets = given.sets_from(cls, params)
        made = cls(**sets[0].model_dump(exclude_unset=True))
        made.sets = cast("tuple[P, ...]", sets)
        return made

    # What an author gives: each for one text and its parameters.

    def word_range(self, params: P) -> tuple[int, int] | None:
        """Fewest and most words that a text can have, or None for any number.

        Asked with this, the number is settled before the first step and START, END and PAD are pinned accordingly.
        """
        return None

    def lengths(self, params: P, most: int) -> Sequence[float]:
        """How often texts with what is asked have 0 to ``most`` words; empty, or all 0, where nothing is known."""
        return ()

    def attach(self, model: Pretrained) -> None:
        """Load what the check needs from beside the model. Called once, before anything is drawn.

        Raises:
            UserError: it is missing, or the parameters do not fit it.
        """

    def prepare(self, batch: BatchContext[P]) -> Prepared:
        """What steers the texts of a batch, text i by ``batch.params[i]``; called before its first step, and again for
        the texts that are left when others are done. By default nothing steers. Raises as ``attach``.
        """
        return Prepared()

    def check(self, params: P, words: Sequence[str]) -> Check:
        """The verdict on a finished text, given as words."""
        raise Lacking

    def check_many(self, params: Sequence[P], texts: Sequence[Sequence[str]]) -> list[Check]:
        """``check`` of several texts, for judges that are quicker with many at once."""
        return [self.check(one, words) for one, words in zip(params, texts, strict=True)]

    def checks_aside(self) -> bool:
        """Whether checks may run in another thread while a GPU draws: they use the processor, and no thread's state."""
        return False

    def under_not(self) -> Control[P]:
        """The control whose check ``not`` turns round: itself, unless its check asks for more than what is unwanted."""
        return self

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
        return self._sound(found, given.range_fault(found))

    def lengths_of(self, sample: int, most: int) -> Sequence[float] | None:
        """The ``lengths`` of a sample; None to go by the model's own numbers. Raises as ``range_of``."""
        found = self._asked("lengths", lambda: [float(one) for one in self.lengths(self.dealt(sample), most)])
        return self._sound(found, given.lengths_fault(found)) if any(found) else None

    def load_from(self, model: Pretrained) -> None:
        """``attach``, of which a fault of the author's code is a UserError too."""
        self._asked("attach", lambda: self.attach(model))

    def ready(self, batch: BatchContext[Any]) -> Prepared:
        """The control laid out for the samples of a batch.

        Raises:
            UserError: as ``prepare``, or its code fails.
        """
        own = replace(batch, params=[self.dealt(draw.sample) for draw in batch.draws])
        found = self._asked("prepare", lambda: self.prepare(own))
        return self._sound(found, given.prepared_fault(found, own))

    def verdicts(self, samples: Sequence[int], texts: Sequence[Sequence[str]]) -> list[Check]:
        """The verdict on the text of each sample.

        Raises:
            UserError: the control's check fails, or gives something else than a ``Check`` with a score from 0 to 1.
        """
        params = [self.dealt(sample) for sample in samples]
        judged = self._asked("check", lambda: list(self.check_many(params, texts)))
        self._sound(judged, given.check_many_fault(judged, texts))
        found = self._asked("check", lambda: [settled(one, len(text)) for one, text in zip(judged, texts, strict=True)])
        return cast("list[Check]", self._sound(found, given.verdicts_fault(found, judged)))

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
        return self.verdicts([0], [given.words_from(self.name, words)])[0]

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
        from dlmctl.control.composites import All

        return All([self, other])

    def __or__(self, other: Control[Any]) -> Control[Any]:
        from dlmctl.control.composites import AnyOf

        return AnyOf([self, other])

    def __invert__(self) -> Control[Any]:
        from dlmctl.control.composites import Not

        return self.parts[0] if isinstance(self, Not) else Not(self)

    def __mul__(self, weight: float) -> Control[P]:
        """``0.5 * control``: the same control with its weight scaled.

        Raises:
            UserError: it is no number from 0 to 1e6.
        """
        scaled = copy.copy(self)
        scaled.weight = self.weight * given.weight_from(self.name, weight)
        return scaled

    __rmul__ = __mul__

    @property
    def share(self) -> float:
        """The weight that it was given, without what its class brings."""
        return self.weight / type(self).weight if type(self).weight else self.weight

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.sets[0].model_dump().items())})"
