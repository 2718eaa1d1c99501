"""The members that an author of a control defines, each for one text and its parameters; all have a default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from pydantic import BaseModel

from dlmctl.control.call_help import CallSignature, help_of
from dlmctl.control.check import Check
from dlmctl.control.prepared import MissingMember, Prepared
from dlmctl.control.state import BatchContext, P
from dlmctl.errors import UserError

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained
    from dlmctl.control.labels import Labels as LabelsBase


class ControlInterface(Generic[P]):
    """The members of ``dlmctl.control.base.Control`` that subclasses define; its attributes are described there."""

    name: ClassVar[str]
    Params: ClassVar[type[BaseModel]]
    Labels: ClassVar[type[LabelsBase] | None] = None
    by_rejection: ClassVar[bool] = False
    by_length: ClassVar[bool] = False
    measures: ClassVar[Sequence[str]] = ()
    asks_scorer: ClassVar[bool] = False
    __signature__: ClassVar[Any] = CallSignature()

    def word_range(self, params: P) -> tuple[int, int] | None:
        """Fewest and most words that a text can have, or None for any number.

        With a range, the number is fixed before the first step, and START, END and PAD are pinned accordingly.
        """
        return None

    def lengths(self, params: P, most: int) -> Sequence[float]:
        """How often texts that satisfy the control have 0 to ``most`` words; empty, or all 0, if unknown."""
        return ()

    def clash(self, params: P, other: P) -> str | None:
        """Why no text can satisfy both sets of parameters, such as two labels where a text has one; None if one can."""
        return None

    def attach(self, model: Pretrained) -> None:
        """Load what the check needs from the model's folder. Called before anything is drawn, on a copy for this model.

        Raises:
            UserError: it is missing, or the parameters do not fit it.
        """

    def prepare(self, batch: BatchContext[P]) -> Prepared:
        """What steers the texts of a batch, text i by ``batch.params[i]``. Called before the first step, and again for
        the remaining texts when others are done. By default nothing steers. Raises as ``attach``.
        """
        return Prepared()

    def check(self, params: P, words: Sequence[str]) -> Check:
        """The verdict on a finished text, a list of words."""
        raise MissingMember

    def check_many(self, params: Sequence[P], texts: Sequence[Sequence[str]]) -> list[Check]:
        """``check`` for several texts, for judges that are faster with many at once."""
        return [self.check(target, words) for target, words in zip(params, texts, strict=True)]

    def check_written(self, params: Sequence[P], texts: Sequence[Sequence[str]], written: Sequence[str]) -> list[Check]:
        """``check_many`` with the texts as written too, for judges of what a reader sees: the words of a model over
        tokens do not tell what was between them. By default only the words are judged."""
        return self.check_many(params, texts)

    def checks_aside(self) -> bool:
        """Whether checks may run in another thread while a GPU draws: they use the CPU and no thread's state."""
        return False

    @classmethod
    def from_words(cls, sentences: Sequence[Sequence[str]]) -> list[P]:
        """For each sentence, parameters that it satisfies itself.

        Raises:
            UserError: the control cannot derive parameters from sentences.
        """
        raise UserError(f"the control {cls.name!r} cannot take its targets from sentences.")

    @classmethod
    def from_target(cls, record: Any) -> P:
        """The parameters for one JSON value of a file of targets (``dlmctl evaluate control``).

        By default those that the list ``words`` of an object satisfies, else the object itself as parameters.

        Raises:
            ValueError, KeyError, TypeError: the value is not a target of this control.
        """
        words = record.get("words") if isinstance(record, dict) else None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return cls.from_words([words])[0]
        return cast("P", cls.Params.model_validate(record))

    # What is the same for all controls.

    def __bool__(self) -> bool:
        """Refused: of ``a and b`` Python would take b alone, and of ``not a`` False.

        Raises:
            UserError: always.
        """
        what = "a control is neither true nor false, so `and`, `or` and `not` do not combine controls."
        raise UserError(what, where=f"control {self.name!r}", remedy="Use &, | and ~, or compare with `is None`.")

    @classmethod
    def getdoc(cls) -> str:
        """What ``?`` shows in IPython and notebooks: the docstring of the class, and what each parameter means."""
        return help_of(cls)
