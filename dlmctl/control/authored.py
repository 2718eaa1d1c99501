"""What an author of a control writes: members that are asked for one text and its parameters, all with a default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from pydantic import BaseModel

from dlmctl.control.check import Check
from dlmctl.control.prepared import Lacking, Prepared
from dlmctl.control.state import BatchContext, P
from dlmctl.errors import UserError

if TYPE_CHECKING:
    from dlmctl.checkpoint.pretrained import Pretrained
    from dlmctl.control.labels import Labels as LabelsOf


class Written(Generic[P]):
    """The members of ``dlmctl.control.base.Control`` that a subclass gives; what its attributes are is said there."""

    name: ClassVar[str]
    Params: ClassVar[type[BaseModel]]
    Labels: ClassVar[type[LabelsOf] | None] = None
    by_rejection: ClassVar[bool] = False
    by_length: ClassVar[bool] = False

    def word_range(self, params: P) -> tuple[int, int] | None:
        """Fewest and most words that a text can have, or None for any number.

        Asked with this, the number is settled before the first step and START, END and PAD are pinned accordingly.
        """
        return None

    def lengths(self, params: P, most: int) -> Sequence[float]:
        """How often texts with what is asked have 0 to ``most`` words; empty, or all 0, where nothing is known."""
        return ()

    def clash(self, params: P, other: P) -> str | None:
        """Why no text can be what both ask, as two labels of which a text has one; None where one can."""
        return None

    def attach(self, model: Pretrained) -> None:
        """Load what the check needs from beside the model. Called before anything is drawn, on a copy for this model.

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

    def check_written(self, params: Sequence[P], texts: Sequence[Sequence[str]], written: Sequence[str]) -> list[Check]:
        """``check_many`` of texts that are given as they were written too, for judges of what a reader sees: the words
        of a model over tokens do not say what stood between them. By default the words are all that is judged."""
        return self.check_many(params, texts)

    def checks_aside(self) -> bool:
        """Whether checks may run in another thread while a GPU draws: they use the processor, and no thread's state."""
        return False

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
