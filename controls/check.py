"""Any test of a finished text that can be written as a function: nothing steers, texts that fail are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PlainSerializer, WithJsonSchema, field_validator

from dlmctl.checkpoint.pretrained import Pretrained
from dlmctl.control.base import Control, ControlParams
from dlmctl.control.check import Check
from dlmctl.control.user_files import load_reference, named_in
from dlmctl.errors import UserError
from dlmctl.text.spelling import detokenize

Verdict = bool | tuple[bool, str] | Check


def _name_of(function: Any) -> str:
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)


# In a recipe the name of a function, in Python perhaps the function itself.
Function = Annotated[
    Any, WithJsonSchema({"type": "string"}), PlainSerializer(_name_of, return_type=str, when_used="json")
]


class PredicateParams(ControlParams):
    """Which function tests the texts."""

    function: Function = Field(
        description="file.py:name of a function that is called with a text and returns whether it passes, or that and "
        "the reason; the file is imported",
        examples=["mine.py:is_polite"],
    )

    @field_validator("function")
    @classmethod
    def _is_one(cls, function: Any) -> Any:
        if callable(function) or (isinstance(function, str) and named_in(function)):
            return function
        raise ValueError(f"a function is named as file.py:name, not {_name_of(function)[:80]!r}")


class Predicate(Control[PredicateParams]):
    """A test of one's own, met by rejection: texts that fail are drawn again, up to ``until.max_rounds`` rounds.

    The function gets the text as a reader sees it. It returns True or False, either with the reason in words, or a
    ``Check``; whatever else it returns is an error, as a text would else pass by accident.
    """

    name = "check"
    Params = PredicateParams
    by_rejection = True

    def __init__(self, *first: Any, **params: Any) -> None:
        super().__init__(*first, **params)
        self.spelled: Callable[[Sequence[str]], str] = detokenize

    def attach(self, model: Pretrained) -> None:
        self.spelled = model.tokenizer.text
        for params in self.sets:
            _function(params)  # a file that cannot be read is found before anything is drawn

    def check(self, params: PredicateParams, words: Sequence[str]) -> Check:
        """What the function says; the score is 1 or 0 where it gives no ``Check``.

        Raises:
            UserError: it returns no verdict.
        """
        return self._verdict(params, self.spelled(words))

    def check_written(
        self, params: Sequence[PredicateParams], texts: Sequence[Sequence[str]], written: Sequence[str]
    ) -> list[Check]:
        """``check`` of the texts with the spaces and lines that they have."""
        return [self._verdict(one, text) for one, text in zip(params, written, strict=True)]

    def _verdict(self, params: PredicateParams, text: str) -> Check:
        found = _function(params)(text)
        if isinstance(found, Check):
            return found
        passed, why = found if isinstance(found, tuple) and len(found) == 2 else (found, "")
        name = _name_of(params.function)
        if not isinstance(passed, bool | np.bool_) or not isinstance(why, str):
            what = f"{name} must return True or False, either with the reason as a text, or a Check, not {found!r}."
            raise UserError(what, where=f"control {self.name!r}", remedy='E.g. `return False, "too long"`.')
        label = name.rpartition(":")[2]
        return Check(float(passed), bool(passed), why or f"{label} says {'yes' if passed else 'no'}")


def _function(params: PredicateParams) -> Callable[[str], Verdict]:
    if callable(params.function):
        return params.function
    named = named_in(params.function)
    assert named is not None
    found = load_reference(named)
    if not callable(found):
        raise UserError(f"{named.attribute!r} is no function.", where=str(named.path))
    return found
